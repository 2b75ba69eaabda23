package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/download"
	"github.com/tarehq/tare/image/unpack"
)

// silently fetches a small blob without a word of progress.
func (p *pull) silently(ctx context.Context, d ocispec.Descriptor) error {
	if size, ok := p.s.content.Size(d.Digest); ok && size == d.Size {
		return nil
	}
	dl, err := p.t.downloads.Want(ctx, d, p.repo)
	if err != nil {
		return err
	}
	defer dl.Leave()
	for again := true; again && err == nil; {
		again, err = dl.Wait(ctx, dl.Attempt())
	}
	return err
}

// blobs fetches what is not to be unpacked.
func (p *pull) blobs(ctx context.Context, list []ocispec.Descriptor) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range list {
		p.tell(d, "Pulling fs layer")
		g.Go(func() error { return p.layer(ctx, d, nil) })
	}
	return g.Wait()
}

// tell says the first word of a layer, once: an image may have it twice.
func (p *pull) tell(d ocispec.Descriptor, status string) {
	if _, told := p.layers[d.Digest]; !told {
		p.layers[d.Digest] = d.Size
		p.progress(Progress{ID: short(d.Digest.Encoded()), Status: status})
	}
}

// unpacked fetches the layers of an image and unpacks them while they come.
func (p *pull) unpacked(ctx context.Context, layers []ocispec.Descriptor, det *catalog.Detail) error {
	for _, d := range layers { // before their bytes come
		if err := unpack.CheckType(d.MediaType); err != nil {
			return fmt.Errorf("cannot unpack layer %s: %w", d.Digest, err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	stack := p.s.unpacker.Stack(layers, det.Config.RootFS.DiffIDs)
	for i, d := range layers {
		size, here := p.s.content.Size(d.Digest)
		if here && size == d.Size && stack.Has(i) {
			p.tell(d, "Already exists")
			continue
		}
		p.tell(d, "Pulling fs layer")
		g.Go(func() error {
			return p.layer(ctx, d, func(open unpack.Opener) error { return stack.Unpack(ctx, i, open) })
		})
	}
	return g.Wait()
}

// layer fetches one blob, and has it unpacked meanwhile by place, unless that is
// nil.
func (p *pull) layer(ctx context.Context, d ocispec.Descriptor, place func(unpack.Opener) error) error {
	if size, ok := p.s.content.Size(d.Digest); ok && size == d.Size {
		if rotten, err := p.stored(ctx, d, place); !rotten {
			return err
		}
	}
	p.fetched.Store(true)
	return p.transfer(ctx, d, place)
}

// stored unpacks a blob that is here. One that has rotted is to be fetched anew,
// in its place.
func (p *pull) stored(ctx context.Context, d ocispec.Descriptor, place func(unpack.Opener) error) (rotten bool, err error) {
	if place == nil {
		return false, nil
	}
	p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Extracting"})
	err = place(p.s.unpacker.Stored(d))
	if err == nil {
		p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Pull complete"})
		return false, nil
	}
	if !errors.Is(err, fault.Invalid) {
		return false, err
	}
	blob, _, e := p.s.content.Open(d.Digest)
	if e != nil {
		return false, err
	}
	defer blob.Close()
	sum := d.Digest.Verifier()
	if _, e := io.Copy(sum, &cancellable{ctx, blob}); e != nil || sum.Verified() {
		return false, err // it is what its author made
	}
	return true, nil
}

// transfer fetches a layer, and has what comes unpacked meanwhile. When that
// was not right it is unpacked anew.
func (p *pull) transfer(ctx context.Context, d ocispec.Descriptor, place func(unpack.Opener) error) error {
	dl, err := p.t.downloads.Want(ctx, d, p.repo)
	if err != nil {
		return err
	}
	defer dl.Leave()
	told := make(chan struct{})
	over := make(chan struct{})
	go func() { defer close(told); p.watch(dl, d, over) }()
	unpacked, unpacking := place == nil, error(nil)
	for again := true; again; {
		a := dl.Attempt()
		if !unpacked {
			unpacking = place(func(ctx context.Context) (io.Reader, func(), error) {
				if r, done, err := a.Read(ctx); r != nil || err != nil {
					return r, done, err
				}
				return p.s.unpacker.Stored(d)(ctx)
			})
			unpacked = unpacking == nil // its files are what the image promises, whatever the blob is
		}
		again, err = dl.Wait(ctx, a)
	}
	close(over)
	<-told
	if err != nil {
		return err
	}
	if unpacking == nil {
		p.progress(Progress{ID: short(d.Digest.Encoded()), Status: "Pull complete"})
	}
	return unpacking
}

// watch tells how a download goes until over is closed.
func (p *pull) watch(dl *download.Share, d ocispec.Descriptor, over <-chan struct{}) {
	id := short(d.Digest.Encoded())
	select {
	case <-dl.Begun():
	case <-over:
		return
	default:
		p.progress(Progress{ID: id, Status: "Waiting"})
		select {
		case <-dl.Begun():
		case <-over:
			return
		}
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for last := int64(-1); ; {
		if have := dl.Have(); have != last && have < d.Size {
			last = have
			p.progress(Progress{ID: id, Status: "Downloading", Current: have, Total: d.Size})
		}
		select {
		case <-tick.C:
			continue
		case <-dl.Done():
		case <-over:
		}
		break
	}
	select {
	case <-dl.Done():
		if dl.Err() == nil {
			p.progress(Progress{ID: id, Status: "Download complete"})
			select {
			case <-over:
			default:
				p.progress(Progress{ID: id, Status: "Extracting"})
			}
		}
	default:
	}
}
