package image

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/image/sum"
	"github.com/tarehq/tare/image/unpack"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/snapshot"
)

// Service does what users ask of images. Its methods may be called at the
// same time.
type Service struct {
	*catalog
	unpacker *unpack.Unpacker
	events   Publisher
	inUse    atomic.Pointer[InUse]
	hello    sync.Mutex // serialises the making of the built-in image

	hardening sync.WaitGroup // of names that were set and may be lost yet
	sums      sum.States
}

// Open begins to serve the images of the two stores, which the caller closes
// after it. What a crash left in them that belongs to no image is removed, and
// the built-in image hello:latest is made when it is missing. events may be
// nil.
func Open(ctx context.Context, store *content.Store, layers *snapshot.Store, events Publisher) (*Service, error) {
	s := &Service{catalog: &catalog{content: store, layers: layers}, unpacker: unpack.New(store, layers), events: events}
	store.AfterCollect(s.collected)
	store.SetRemaker(remaker{layers})
	if err := store.SetDurable(func() error { return errors.Join(layers.Sync(), store.Sync()) }); err != nil {
		return nil, err
	}
	if err := store.Collect(); err != nil {
		// An image that is damaged must not keep the others from being used.
		slog.WarnContext(ctx, "nothing was cleaned up in the image store", "error", err)
	}
	if _, ok := store.Index().Lookup(helloName); !ok {
		if err := s.makeHello(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// SetInUse sets who is asked for the containers of an image. Until it is
// called no image counts as used.
func (s *Service) SetInUse(f InUse) { s.inUse.Store(&f) }

// uses tells which containers were made from which image.
func (s *Service) uses() map[digest.Digest][]Use {
	if f := s.inUse.Load(); f != nil && *f != nil {
		return (*f)()
	}
	return nil
}

// Count tells how many images there are, names apart.
func (s *Service) Count() int {
	seen := map[digest.Digest]struct{}{}
	for _, e := range s.content.Index().Entries() {
		seen[e.Target.Digest] = struct{}{}
	}
	return len(seen)
}

// collected sweeps the layers after the blobs: those stay that the images can
// be run from.
func (s *Service) collected(targets []ocispec.Descriptor) error {
	live := map[digest.Digest]struct{}{}
	var keep []digest.Digest
	for _, t := range targets {
		for _, m := range s.members(t) {
			live[m.desc.Digest] = struct{}{}
			if m.detail != nil {
				keep = append(keep, m.detail.chain())
			}
		}
	}
	s.details.Range(func(d, _ any) bool {
		if _, ok := live[d.(digest.Digest)]; !ok {
			s.details.Delete(d)
		}
		return true
	})
	return s.layers.Sweep(keep)
}

// store makes what was written durable and gives it its names, all at once.
// The caller holds the content.
func (s *Service) store(entries []content.Entry) error {
	if err := s.layers.Sync(); err != nil {
		return err
	}
	if err := s.content.Sync(); err != nil {
		return err
	}
	return s.content.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.With(entries...), nil
	})
}

// storeSoon gives what was written its names. That it survives power loss is seen
// to meanwhile.
func (s *Service) storeSoon(entries []content.Entry) error {
	err := s.content.UpdateSoon(func(ix *content.Index) (*content.Index, error) { return ix.With(entries...), nil })
	if err != nil {
		return err
	}
	s.hardening.Go(func() {
		if err := s.content.Harden(); err != nil { // the next change of a name tries again
			slog.Error("images that were built would not survive power loss", "error", err)
		}
	})
	return nil
}

// Close returns when all that was named survives power loss.
func (s *Service) Close() error {
	s.hardening.Wait()
	return s.content.Harden()
}

// hold keeps content from collection while blobs are written that have no
// name yet. done must be called with the outcome: what a failure left is
// removed.
func (s *Service) hold() (done func(error)) {
	release := s.content.Hold()
	return func(err error) {
		if err != nil {
			s.content.Collect() // becomes due at the release
		}
		release()
	}
}

// publish tells of an action on the image, with its labels and a name as
// Docker's events have them.
func (s *Service) publish(action string, target ocispec.Descriptor, name string) {
	if s.events == nil {
		return
	}
	attrs := map[string]string{}
	if m, err := s.choose(target, "", ""); err == nil {
		maps.Copy(attrs, m.detail.config.Config.Labels)
	}
	if name == "" {
		name = target.Digest.String()
	}
	attrs["name"] = reference.Familiar(name)
	s.events.Publish(action, target.Digest.String(), attrs)
}
