package image

import (
	"context"
	"maps"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// footprint is what some images take on disk: each blob and each unpacked layer
// once, in bytes.
type footprint struct {
	blobs, layers map[digest.Digest]int64
}

func (f footprint) total() (n int64) {
	for _, size := range f.blobs {
		n += size
	}
	for _, size := range f.layers {
		n += size
	}
	return n
}

// without is what is left when the other's blobs and layers count no more.
func (f footprint) without(other footprint) footprint {
	left := footprint{maps.Clone(f.blobs), maps.Clone(f.layers)}
	maps.DeleteFunc(left.blobs, func(d digest.Digest, _ int64) bool { _, has := other.blobs[d]; return has })
	maps.DeleteFunc(left.layers, func(d digest.Digest, _ int64) bool { _, has := other.layers[d]; return has })
	return left
}

// footprint adds up what the targets lead to.
func (s *catalog) footprint(targets []ocispec.Descriptor) (footprint, error) {
	f := footprint{map[digest.Digest]int64{}, map[digest.Digest]int64{}}
	for _, t := range targets {
		err := s.content.Reach(t, func(d ocispec.Descriptor, size int64) error {
			f.blobs[d.Digest] = size
			return nil
		})
		if err != nil {
			return f, err
		}
		for _, chain := range chainsOf(s.members(t)) {
			f.layers[chain] = s.layers.Size(chain)
		}
	}
	return f, nil
}

// targets lists what the names point to, each image once.
func (s *catalog) targets() (list []ocispec.Descriptor) {
	seen := map[digest.Digest]bool{}
	for _, e := range s.content.Index().Entries() {
		if !seen[e.Target.Digest] {
			seen[e.Target.Digest] = true
			list = append(list, e.Target)
		}
	}
	return list
}

// Usage tells what the images take on disk, and what of it no container needs.
// Items are all images, with what each shares with others.
func (s *Service) Usage(ctx context.Context) (*wire.DiskUsage, error) {
	items, err := s.List(ctx, ListOptions{All: true, SharedSize: true})
	if err != nil {
		return nil, err
	}
	all := s.targets()
	uses := s.uses()
	var used []ocispec.Descriptor
	for _, t := range all {
		if len(uses[t.Digest]) > 0 {
			used = append(used, t)
		}
	}
	whole, err := s.footprint(all)
	if err != nil {
		return nil, err
	}
	needed, err := s.footprint(used)
	if err != nil {
		return nil, err
	}
	return &wire.DiskUsage{
		ActiveCount: int64(len(used)), TotalCount: int64(len(all)), Items: items,
		TotalSize: whole.total(), Reclaimable: whole.total() - needed.total(),
	}, nil
}
