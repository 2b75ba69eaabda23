package image

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/hello"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/sum"
	"github.com/tarehq/tare/image/unpack"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/snapshot"
)

// Service changes which images are here, and what they are called. What is here, its
// fields know. Its methods may be called at the same time.
type Service struct {
	Catalog   *catalog.Catalog
	Inventory *inventory.Inventory

	content  *content.Store
	layers   *snapshot.Store
	unpacker *unpack.Unpacker
	events   Publisher

	hardening sync.WaitGroup // of names that were set and may be lost yet
	sums      sum.States
}

// Open begins to serve the images of the two stores, which the caller closes
// after it. What a crash left in them that belongs to no image is removed, and
// the built-in image hello:latest is made when it is missing. events may be
// nil.
func Open(ctx context.Context, store *content.Store, layers *snapshot.Store, events Publisher) (*Service, error) {
	s := &Service{content: store, layers: layers, unpacker: unpack.New(store, layers), events: events}
	builtIn := &hello.Maker{Content: store, Layers: layers}
	s.Catalog = catalog.New(store, layers, s.unpacker, builtIn)
	s.Inventory = &inventory.Inventory{Catalog: s.Catalog, Content: store, Layers: layers}
	store.AfterCollect(s.collected)
	store.SetRemaker(remaker{layers})
	if err := store.SetDurable(func() error { return errors.Join(layers.Sync(), store.Sync()) }); err != nil {
		return nil, err
	}
	if err := store.Collect(); err != nil {
		// An image that is damaged must not keep the others from being used.
		slog.WarnContext(ctx, "nothing was cleaned up in the image store", "error", err)
	}
	if err := builtIn.Make(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// collected sweeps the layers after the blobs: those stay that the images can
// be run from.
func (s *Service) collected(targets []ocispec.Descriptor) error {
	return s.layers.Sweep(s.Catalog.Needed(targets))
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

// hardenAfter is how long what was just built is not written to the disk: the end of
// its build, and a run of it, would wait for the file system meanwhile.
const hardenAfter = 100 * time.Millisecond

// storeSoon gives what was written its names. That it survives power loss is seen
// to meanwhile.
func (s *Service) storeSoon(entries []content.Entry) error {
	err := s.content.UpdateSoon(func(ix *content.Index) (*content.Index, error) { return ix.With(entries...), nil })
	if err != nil {
		return err
	}
	s.hardening.Go(func() {
		time.Sleep(hardenAfter)
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

// publish tells of an action on the image, with its labels and a name as
// Docker's events have them.
func (s *Service) publish(action string, target ocispec.Descriptor, name string) {
	if s.events == nil {
		return
	}
	attrs := map[string]string{}
	if m, err := s.Catalog.Choose(target, "", ""); err == nil {
		maps.Copy(attrs, m.Detail.Config.Config.Labels)
	}
	if name == "" {
		name = target.Digest.String()
	}
	attrs["name"] = reference.Familiar(name)
	s.events.Publish(action, target.Digest.String(), attrs)
}
