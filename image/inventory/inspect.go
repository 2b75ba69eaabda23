package inventory

import (
	"context"
	"errors"
	"time"

	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
)

// InspectOptions as in GET /images/{name}/json: one platform, or the list of
// all manifests, not both.
type InspectOptions struct {
	Platform  string
	Manifests bool
}

// Inspect tells all about an image, of an index about this machine's platform unless
// another is asked for.
func (s *Inventory) Inspect(ctx context.Context, ref string, o InspectOptions) (wire.InspectResponse, error) {
	if o.Manifests && o.Platform != "" {
		return wire.InspectResponse{}, fault.New(fault.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	f, err := s.Catalog.Find(ctx, ref)
	if err != nil {
		return wire.InspectResponse{}, err
	}
	target := f.Target
	members := s.Catalog.Members(target)
	best := catalog.Representative(members)
	if o.Platform != "" {
		m, err := s.Catalog.Choose(target, o.Platform, ref)
		if err != nil {
			return wire.InspectResponse{}, err
		}
		best, target = &m, m.Desc // the platform's manifest is what is told about
	}
	if best == nil { // as of an artifact, or of platforms that are not here
		if _, err := s.Catalog.Choose(target, "", catalog.FamiliarTagged(ref)); !errors.Is(err, fault.NotFound) {
			return wire.InspectResponse{}, err
		}
	}
	r := wire.InspectResponse{
		ID: target.Digest.String(), Descriptor: &target,
		GraphDriver: &storage.DriverData{Name: s.Layers.Driver()},
	}
	if best != nil {
		describe(&r, best.Detail)
	}
	r.RepoTags, r.RepoDigests = names(f.All)
	for _, e := range f.All {
		if e.Updated.After(r.Metadata.LastTagTime) {
			r.Metadata.LastTagTime = e.Updated
		}
	}
	if o.Platform != "" {
		r.Size = best.Size + s.unpackedSize(*best)
	} else {
		r.Size = s.size(target, members)
	}
	if o.Manifests {
		r.Manifests = s.manifestSummaries(members, s.Catalog.Uses()[f.Target.Digest])
	}
	return r, nil
}

// Parent is the catalog's, in the words of old versions of the API.
func (s *Inventory) Parent(id string) string { return s.Catalog.Parent(digest.Digest(id)).String() }

// describe tells what the config of the image says. An image of which no
// platform is here has none.
func describe(r *wire.InspectResponse, d *catalog.Detail) {
	config := d.Config
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
func (s *Inventory) History(ctx context.Context, ref, platform string) ([]wire.HistoryResponseItem, error) {
	f, m, err := s.Catalog.Chosen(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	list := make([]wire.HistoryResponseItem, len(m.Detail.Config.History))
	layer := 0
	for i, h := range m.Detail.Config.History {
		item := wire.HistoryResponseItem{ID: "<missing>", Comment: h.Comment, CreatedBy: h.CreatedBy, Tags: nil}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(m.Detail.Chains) {
			item.Size = s.Layers.Size(m.Detail.Chains[layer])
			layer++
		}
		list[len(list)-1-i] = item
	}
	id := f.Target.Digest
	for i := 0; i < len(list) && id != ""; i++ {
		list[i].ID = id.String()
		list[i].Tags, _ = names(s.Content.Index().Of(id))
		id = s.Catalog.Parent(id)
	}
	return list, nil
}
