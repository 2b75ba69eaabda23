package catalog

import (
	"maps"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Footprint is what some images take on disk: each blob and each unpacked layer
// once, in bytes.
type Footprint struct {
	blobs, layers map[digest.Digest]int64
}

// Total is in bytes.
func (f Footprint) Total() (n int64) {
	for _, size := range f.blobs {
		n += size
	}
	for _, size := range f.layers {
		n += size
	}
	return n
}

// Without is what is left when the other's blobs and layers count no more.
func (f Footprint) Without(other Footprint) Footprint {
	left := Footprint{maps.Clone(f.blobs), maps.Clone(f.layers)}
	maps.DeleteFunc(left.blobs, func(d digest.Digest, _ int64) bool { _, has := other.blobs[d]; return has })
	maps.DeleteFunc(left.layers, func(d digest.Digest, _ int64) bool { _, has := other.layers[d]; return has })
	return left
}

// Footprint adds up what the targets lead to.
func (s *Catalog) Footprint(targets []ocispec.Descriptor) (Footprint, error) {
	f := Footprint{map[digest.Digest]int64{}, map[digest.Digest]int64{}}
	for _, t := range targets {
		err := s.content.Reach(t, func(d ocispec.Descriptor, size int64) error {
			f.blobs[d.Digest] = size
			return nil
		})
		if err != nil {
			return f, err
		}
		for _, chain := range ChainsOf(s.Members(t)) {
			f.layers[chain] = s.layers.Size(chain)
		}
	}
	return f, nil
}

// Targets lists what the names point to, each image once.
func (s *Catalog) Targets() (list []ocispec.Descriptor) {
	seen := map[digest.Digest]bool{}
	for _, e := range s.content.Index().Entries() {
		if !seen[e.Target.Digest] {
			seen[e.Target.Digest] = true
			list = append(list, e.Target)
		}
	}
	return list
}
