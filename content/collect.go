package content

import (
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Hold keeps collections away until release is called: between writing blobs
// and naming them, or while reading blobs that may lose their name. release
// runs the collection that became due meanwhile. It may be called twice.
func (s *Store) Hold() (release func()) {
	s.gate.Lock()
	s.holds++
	s.gate.Unlock()
	done := false
	return func() {
		s.gate.Lock()
		defer s.gate.Unlock()
		if done {
			return
		}
		done = true
		s.holds--
		if s.holds > 0 {
			return
		}
		s.forgetLocked()
		if s.overdue {
			// Nobody waits for the outcome; what stays is found next time.
			s.collectLocked()
		}
	}
}

// Attempt is Hold for what may fail: done must be called with the outcome, and what a
// failure left is removed.
func (s *Store) Attempt() (done func(error)) {
	release := s.Hold()
	return func(err error) {
		if err != nil {
			s.Collect() // becomes due at the release
		}
		release()
	}
}

// AfterCollect sets what else is swept in the same undisturbed moment: f gets
// the targets of all entries. Set before the store is shared.
func (s *Store) AfterCollect(f func(targets []ocispec.Descriptor) error) { s.after = f }

// Collect removes all blobs that no entry leads to, nor what is attached to one,
// now or when the last hold is released. When a manifest that is named is
// damaged or cannot be read nothing is removed.
func (s *Store) Collect() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.holds > 0 {
		s.overdue = true
		return nil
	}
	return s.collectLocked()
}

func (s *Store) collectLocked() error {
	s.overdue = false
	// A name may be set while nobody holds the store only for blobs that
	// another name leads to, so the index must stand still.
	s.names.Lock()
	defer s.names.Unlock()
	live := map[digest.Digest]struct{}{}
	var targets []ocispec.Descriptor
	ix := s.Index()
	for _, e := range ix.Entries() {
		targets = append(targets, e.Target)
	}
	roots := slices.Clone(targets)
	for _, a := range ix.attached {
		roots = append(roots, a.Target)
	}
	// Each root on its own: what lies too deep in one may be the top of another.
	for _, root := range roots {
		err := s.Reach(root, func(d ocispec.Descriptor, _ int64) error {
			live[d.Digest] = struct{}{}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := s.sweep(live); err != nil {
		return err
	}
	if _, err := s.DropPartials(partialAge); err != nil {
		return err
	}
	if s.after != nil {
		return s.after(targets)
	}
	return nil
}

func (s *Store) sweep(live map[digest.Digest]struct{}) error {
	algorithms, err := os.ReadDir(s.path(ocispec.ImageBlobsDir))
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		blobs, err := os.ReadDir(s.path(ocispec.ImageBlobsDir + "/" + algorithm.Name()))
		if err != nil {
			return err
		}
		for _, b := range blobs {
			d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm.Name()), b.Name())
			if _, ok := live[d]; ok {
				continue
			}
			for _, index := range []bool{false, true} {
				s.nodes.Delete(reading{d, true, index})
			}
			s.unsynced.Delete(d)
			path := s.path(ocispec.ImageBlobsDir + "/" + algorithm.Name() + "/" + b.Name())
			if err := remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}
