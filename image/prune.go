package image

import (
	"context"
	"errors"
	"strconv"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/inventory"
)

// Prune removes the images that no container uses: those without a name, or all
// when the filter dangling is false. Further filters, until and label, choose
// among them. What was fetched of images that have not come whole goes too. It
// tells what went and how many bytes that gives back.
func (s *Service) Prune(ctx context.Context, given map[string]map[string]bool) (gone []wire.DeleteResponse, freed int64, err error) {
	dangling := true
	rest := map[string]map[string]bool{}
	for key, values := range given {
		switch key {
		case "dangling":
			if dangling, err = onlyBool(key, values); err != nil {
				return nil, 0, err
			}
		case "until", "label", "label!":
			rest[key] = values
		default:
			return nil, 0, fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	if len(rest["until"]) > 1 {
		return nil, 0, fault.New(fault.Invalid, "more than one until filter specified")
	}
	keep, err := inventory.NewFilter(ctx, s.Catalog, rest)
	if err != nil {
		return nil, 0, err
	}
	before, err := s.Catalog.Footprint(s.Catalog.Targets())
	if err != nil {
		return nil, 0, err
	}
	for _, t := range s.Catalog.Targets() {
		if err := ctx.Err(); err != nil {
			return gone, 0, err
		}
		removed, err := s.pruneOne(ctx, t, dangling, keep)
		if err != nil {
			return gone, 0, err
		}
		gone = append(gone, removed...)
	}
	after, err := s.Catalog.Footprint(s.Catalog.Targets())
	if err != nil {
		return gone, 0, err
	}
	partial, err := s.content.DropPartials(0)
	freed = before.Without(after).Total() + partial // what came meanwhile is no less of what went
	s.events.Publish("prune", "", map[string]string{"reclaimed": strconv.FormatInt(freed, 10)})
	return gone, freed, err
}

func onlyBool(key string, values map[string]bool) (bool, error) {
	for value := range values {
		switch value {
		case "true", "1":
			return true, onlyOne(key, values)
		case "false", "0":
			return false, onlyOne(key, values)
		}
		return false, fault.New(fault.Invalid, "invalid filter '%s=[%s]'", key, value)
	}
	return true, nil
}

func onlyOne(key string, values map[string]bool) error {
	if len(values) > 1 {
		return fault.New(fault.Invalid, "invalid filter '%s=[true false]'", key)
	}
	return nil
}

// pruneOne removes one image if it may go. One that got a name or a container
// in the meantime stays.
func (s *Service) pruneOne(ctx context.Context, t ocispec.Descriptor, dangling bool, keep *inventory.Filter) ([]wire.DeleteResponse, error) {
	index := s.content.Index()
	entries := index.Of(t.Digest)
	named := len(entries) > 0 && entries[0].Name != ""
	if dangling && named || !named && index.HasChildren(t.Digest) || len(s.Catalog.Uses()[t.Digest]) > 0 {
		return nil, nil
	}
	members := s.Catalog.Members(t)
	if !keep.Image(catalog.Representative(members), members) {
		return nil, nil
	}
	var gone []wire.DeleteResponse
	for _, ref := range pruneWords(entries, t.Digest) {
		removed, err := s.Remove(ctx, ref, RemoveOptions{})
		if errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return gone, err
		}
		gone = append(gone, removed...)
	}
	return gone, nil
}

// pruneWords are the words by which an image is to be removed: each of its
// names, or its ID.
func pruneWords(entries []content.Entry, id digest.Digest) (words []string) {
	for _, e := range entries {
		if e.Name != "" {
			words = append(words, e.Name)
		}
	}
	if len(words) == 0 {
		words = []string{id.String()}
	}
	return words
}
