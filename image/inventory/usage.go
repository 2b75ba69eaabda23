package inventory

import (
	"context"

	wire "github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Usage tells what the images take on disk, and what of it no container needs.
// Items are all images, with what each shares with others.
func (s *Inventory) Usage(ctx context.Context) (*wire.DiskUsage, error) {
	items, err := s.List(ctx, ListOptions{All: true, SharedSize: true})
	if err != nil {
		return nil, err
	}
	all := s.Catalog.Targets()
	uses := s.Catalog.Uses()
	var used []ocispec.Descriptor
	for _, t := range all {
		if len(uses[t.Digest]) > 0 {
			used = append(used, t)
		}
	}
	whole, err := s.Catalog.Footprint(all)
	if err != nil {
		return nil, err
	}
	needed, err := s.Catalog.Footprint(used)
	if err != nil {
		return nil, err
	}
	return &wire.DiskUsage{
		ActiveCount: int64(len(used)), TotalCount: int64(len(all)), Items: items,
		TotalSize: whole.Total(), Reclaimable: whole.Total() - needed.Total(),
	}, nil
}

// Count tells how many images there are, names apart.
func (s *Inventory) Count() int { return len(s.Catalog.Targets()) }
