package image

import (
	"context"
	"errors"
	"time"

	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
)

// InspectOptions as in GET /images/{name}/json: one platform, or the list of
// all manifests, not both.
type InspectOptions struct {
	Platform  string
	Manifests bool
}

// Inspect tells all about an image, of an index about this machine's platform.
func (s *Service) Inspect(ctx context.Context, ref string) (wire.InspectResponse, error) {
	return s.InspectWith(ctx, ref, InspectOptions{})
}

// InspectWith is Inspect with a choice.
func (s *Service) InspectWith(ctx context.Context, ref string, o InspectOptions) (wire.InspectResponse, error) {
	if o.Manifests && o.Platform != "" {
		return wire.InspectResponse{}, fault.New(fault.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	f, err := s.find(ctx, ref)
	if err != nil {
		return wire.InspectResponse{}, err
	}
	target := f.target
	members := s.members(target)
	best := representative(members)
	if o.Platform != "" {
		m, err := s.choose(target, o.Platform, ref)
		if err != nil {
			return wire.InspectResponse{}, err
		}
		best, target = &m, m.desc // the platform's manifest is what is told about
	}
	if best == nil { // as of an artifact, or of platforms that are not here
		if _, err := s.choose(target, "", familiarTagged(ref)); !errors.Is(err, fault.NotFound) {
			return wire.InspectResponse{}, err
		}
	}
	r := wire.InspectResponse{
		ID: target.Digest.String(), Descriptor: &target,
		GraphDriver: &storage.DriverData{Name: s.layers.Driver()},
	}
	if best != nil {
		describe(&r, best.detail)
	}
	r.RepoTags, r.RepoDigests = names(f.all)
	for _, e := range f.all {
		if e.Updated.After(r.Metadata.LastTagTime) {
			r.Metadata.LastTagTime = e.Updated
		}
	}
	if o.Platform != "" {
		r.Size = best.size + s.unpackedSize(*best)
	} else {
		r.Size = s.size(target, members)
	}
	if o.Manifests {
		r.Manifests = s.manifestSummaries(members, s.uses()[f.target.Digest])
	}
	return r, nil
}

// describe tells what the config of the image says. An image of which no
// platform is here has none.
func describe(r *wire.InspectResponse, d *detail) {
	config := d.config
	r.Author, r.Config = config.Author, &config.Config
	r.Architecture, r.Variant, r.Os, r.OsVersion = config.Architecture, config.Variant, config.OS, config.OSVersion
	if config.Created != nil {
		r.Created = config.Created.Format(time.RFC3339Nano)
	}
	if n := len(config.History); n > 0 {
		r.Comment = config.History[n-1].Comment
	}
	r.RootFS = wire.RootFS{Type: "layers", Layers: []string{}}
	for _, d := range config.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
}

// History lists the steps that made the image of a platform, "" for any, newest
// first. The newest has an ID, and below what a commit added the image that its
// container was made from, as long as it is here. Of the others no image exists.
func (s *Service) History(ctx context.Context, ref, platform string) ([]wire.HistoryResponseItem, error) {
	f, m, err := s.chosen(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	list := make([]wire.HistoryResponseItem, len(m.detail.config.History))
	layer := 0
	for i, h := range m.detail.config.History {
		item := wire.HistoryResponseItem{ID: "<missing>", Comment: h.Comment, CreatedBy: h.CreatedBy, Tags: nil}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(m.detail.chains) {
			item.Size = s.layers.Size(m.detail.chains[layer])
			layer++
		}
		list[len(list)-1-i] = item
	}
	id := f.target.Digest
	for i := 0; i < len(list) && id != ""; i++ {
		list[i].ID = id.String()
		list[i].Tags, _ = names(s.content.Index().Of(id))
		id = s.parent(id)
	}
	return list, nil
}

// Parent is the image that the container was made from of which this one was
// committed, "" where none is here.
func (s *Service) Parent(id string) string { return s.parent(digest.Digest(id)).String() }

func (s *catalog) parent(id digest.Digest) digest.Digest {
	index := s.content.Index()
	if all := index.Of(id); len(all) > 0 && len(index.Of(all[0].Parent)) > 0 {
		return all[0].Parent
	}
	return ""
}
