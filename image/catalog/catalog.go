// Package catalog knows which images are here: what a name means, which manifests an
// image has and what each says, and for which machine it is. It reads, and
// changes nothing but what it remembers of manifests, which never change. Only the
// built-in image it makes again when it is asked for, and layers that are stored
// it unpacks when they are needed.
package catalog

import (
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/image/hello"
	"github.com/tarehq/tare/image/unpack"
	"github.com/tarehq/tare/snapshot"
)

// Catalog is that of one store. Its methods may be called at the same time.
type Catalog struct {
	content  *content.Store
	layers   *snapshot.Store
	unpacker *unpack.Unpacker
	hello    *hello.Maker
	inUse    atomic.Pointer[InUse]
	details  sync.Map // digest.Digest of a manifest -> *Detail
}

// New reads nothing yet.
func New(store *content.Store, layers *snapshot.Store, unpacker *unpack.Unpacker, builtIn *hello.Maker) *Catalog {
	return &Catalog{content: store, layers: layers, unpacker: unpacker, hello: builtIn}
}

// Use is one container that was made from an image.
type Use struct {
	Container string // full ID
	Running   bool
}

// InUse tells which containers were made from which image.
type InUse func() map[digest.Digest][]Use

// SetInUse sets who is asked for the containers of an image. Until it is
// called no image counts as used.
func (s *Catalog) SetInUse(f InUse) { s.inUse.Store(&f) }

// Uses tells which containers were made from which image.
func (s *Catalog) Uses() map[digest.Digest][]Use {
	if f := s.inUse.Load(); f != nil && *f != nil {
		return (*f)()
	}
	return nil
}

// Needed lists the topmost layers of what the targets can be run from, and forgets
// the manifests that none of them has.
func (s *Catalog) Needed(targets []ocispec.Descriptor) (chains []digest.Digest) {
	live := map[digest.Digest]struct{}{}
	for _, t := range targets {
		for _, m := range s.Members(t) {
			live[m.Desc.Digest] = struct{}{}
			if m.Detail != nil {
				chains = append(chains, m.Detail.Chain())
			}
		}
	}
	s.details.Range(func(d, _ any) bool {
		if _, ok := live[d.(digest.Digest)]; !ok {
			s.details.Delete(d)
		}
		return true
	})
	return chains
}

// Forget drops what is remembered of a manifest, whose content is gone.
func (s *Catalog) Forget(manifest digest.Digest) { s.details.Delete(manifest) }
