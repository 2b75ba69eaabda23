package image

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/image/download"
	"github.com/tarehq/tare/remote"
)

// progressEvery is how often a transfer tells how far it is.
const progressEvery = 100 * time.Millisecond

// Progress is one step of a transfer, in Docker's words. Where ID is set it is
// about one layer, or says which tag the whole is about.
type Progress struct {
	ID             string // the beginning of the layer's digest
	Tag            bool   // ID is a tag instead
	Status         string
	Current, Total int64 // bytes; Total is 0 where there is nothing to count
	Aux            any   // what a program wants to know; to be shown as JSON
}

// Credentials is what is known about a user of a registry.
type Credentials = remote.Credentials

// Limits bound what transfers do at a time.
type Limits struct {
	Downloads int // layers from one registry; and three times as many in the whole daemon
	Uploads   int // layers in the whole daemon
}

// Transfers move images between registries and the store.
type Transfers struct {
	images     *Service
	registries *remote.Client
	downloads  *download.Downloads
	uploads    atomic.Pointer[chan struct{}] // one token for each layer that may be sent at a time
	settling   sync.WaitGroup
}

// NewTransfers begins with nothing under way.
func NewTransfers(images *Service, registries *remote.Client, l Limits) *Transfers {
	t := &Transfers{images: images, registries: registries, downloads: download.New(images.content)}
	t.SetLimits(l)
	return t
}

// SetLimits changes the limits. What is under way goes on: it counts among the
// downloads, and not among the uploads.
func (t *Transfers) SetLimits(l Limits) {
	t.downloads.SetLimit(max(l.Downloads, 1))
	tokens := make(chan struct{}, max(l.Uploads, 1))
	t.uploads.Store(&tokens)
}

// settle has the layers that were unpacked survive power loss, too, so that the
// first container does not wait for it. Their blobs do already: should it fail
// or be cut off they are unpacked again.
func (t *Transfers) settle() {
	t.settling.Go(func() {
		if err := t.images.layers.Sync(); err != nil {
			slog.Warn("unpacked layers are not on disk yet", "error", err)
		}
	})
}

// giveBack drops what waits for another try when the disk is full: it would
// stay full for as long as that waits. The layers are those of the pull that
// failed, whose downloads are just ending.
func (t *Transfers) giveBack(layers map[digest.Digest]int64) {
	t.settling.Go(func() {
		ctx := context.Background() // of no request any more
		for d, size := range layers {
			_ = t.images.content.PartialClosed(ctx, d, size) // ends with ctx alone
		}
		if _, err := t.images.content.DropPartials(0); err != nil {
			slog.Warn("what was fetched of images stays on the full disk", "error", err)
		}
	})
}

// Close waits for the downloads that nobody wants any more to end. Those who
// want some have been told to stop before.
func (t *Transfers) Close(ctx context.Context) error {
	ended := make(chan struct{})
	go func() { t.downloads.Wait(); t.settling.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// serial keeps calls of f apart.
func serial(f func(Progress)) func(Progress) {
	var mu sync.Mutex
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		f(p)
	}
}
