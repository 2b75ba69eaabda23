package download

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote"
)

const (
	// rangedFrom is the size from which on a blob is fetched in several ranges
	// at once, each of pieceSize bytes. Many registries' stores give one
	// connection a fraction of what the line carries.
	rangedFrom = 64 << 20
	pieceSize  = 16 << 20
	ranges     = 3
	// copySize is how much is read from a connection at most at once.
	copySize = 256 << 10
)

// Attempt is one try at the bytes of a download. When the source that is drawn
// from fails, the next goes on where it stopped. When the bytes of several, or
// those that an earlier process left, come to another digest, nobody knows whose
// were wrong: from then on all the bytes of an attempt are one source's, and
// the source of wrong ones is struck out.
type Attempt struct {
	dl     *download
	alone  bool          // all bytes are to be one source's
	opened chan struct{} // closed when partial is set, or at the end
	over   chan struct{} // closed at its end
	err    error         // set before: errWrong when another attempt follows

	partial  *content.Partial
	readers  sync.WaitGroup          // of partial; added to under Downloads.mu
	followed bool                    // it has or had a reader; guarded by Downloads.mu
	from     map[*remote.Source]bool // whose bytes came
}

func newAttempt(dl *download, alone bool) *Attempt {
	return &Attempt{dl: dl, alone: alone, opened: make(chan struct{}), over: make(chan struct{}), from: map[*remote.Source]bool{}}
}

func (a *Attempt) run(ctx context.Context) error {
	if err := a.open(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.transfer(ctx) })
	g.Go(func() error { return a.partial.Verify(ctx) })
	err := g.Wait()
	switch {
	case err == nil:
		return a.partial.Commit()
	case errors.Is(err, fault.Invalid) && a.partial.Have() == a.dl.blob.size:
		return a.wrong(err)
	case a.partial.Have() == 0 && err != errWrong:
		if e := a.partial.Drop(); e != nil {
			return e
		}
	}
	return err
}

// open waits for the one who had the blob open before and is about to give it up.
func (a *Attempt) open(ctx context.Context) error {
	b, store := a.dl.blob, a.dl.all.content
	for ctx.Err() == nil {
		p, err := store.Partial(b.digest, b.size)
		if err == nil {
			a.partial = p
			close(a.opened)
			return nil
		}
		if !errors.Is(err, fault.Conflict) {
			return err
		}
		if err := store.PartialClosed(ctx, b.digest, b.size); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// wrong drops bytes that do not have the digest.
func (a *Attempt) wrong(why error) error {
	if err := a.partial.Drop(); err != nil {
		return err
	}
	resumed := a.partial.Resumed() > 0
	switch {
	case !resumed && len(a.from) == 0: // nobody's: the blob is said to be empty
		return why
	case resumed || len(a.from) > 1:
		a.alone = true
		return errWrong
	}
	a.dl.all.mu.Lock()
	defer a.dl.all.mu.Unlock()
	for source := range a.from {
		a.dl.supply.lied(source, fault.New(fault.Invalid, "%s sent wrong bytes: %w", source.Host(), why))
	}
	return errWrong
}

// transfer fetches what is missing, from one source after the other.
func (a *Attempt) transfer(ctx context.Context) error {
	for a.partial.Have() < a.dl.blob.size {
		d, drawing := a.dl.draw(ctx)
		if d == nil {
			return errNoSource
		}
		if a.alone && len(a.from) > 0 && !a.from[d.source] {
			d.cancel(nil)
			a.dl.drawn(d, nil, nil, true)
			if err := a.partial.Drop(); err != nil {
				return err
			}
			return errWrong
		}
		var watching sync.WaitGroup
		watching.Go(func() { a.dl.watch(drawing, d) })
		err := a.take(drawing, d)
		cause := context.Cause(drawing)
		d.cancel(nil)
		watching.Wait()
		if d.bytes.Load() > 0 {
			a.from[d.source] = true
		}
		if _, ours := errors.AsType[storeError](err); ours || ctx.Err() != nil {
			a.dl.drawn(d, nil, nil, a.alone)
			return err
		}
		a.dl.drawn(d, cause, err, a.alone)
	}
	return nil
}

// storeError is that bytes could not be written, which no other source helps
// with.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

// take fetches what is missing from one source, a large blob in several ranges
// at once and in their order, so that readers need not wait for the last of
// them. One that knows no ranges is read once from the first byte that is
// missing.
func (a *Attempt) take(ctx context.Context, d *draw) error {
	streams, piece := 1, max(a.dl.blob.size, 1)
	if a.dl.blob.size >= rangedFrom {
		streams, piece = ranges, pieceSize
	}
	err := a.pieces(ctx, d, streams, piece)
	if !errors.Is(err, remote.ErrNoRanges) {
		return err
	}
	for gap := range a.partial.Missing(piece) {
		return a.piece(ctx, d, content.Span{Start: gap.Start, End: a.dl.blob.size}, make([]byte, copySize))
	}
	return nil
}

func (a *Attempt) pieces(ctx context.Context, d *draw, streams int, piece int64) error {
	gaps := make(chan content.Span)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(gaps)
		for gap := range a.partial.Missing(piece) {
			select {
			case gaps <- gap:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range streams {
		g.Go(func() error {
			buf := make([]byte, copySize)
			for gap := range gaps {
				if err := a.piece(ctx, d, gap, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (a *Attempt) piece(ctx context.Context, d *draw, gap content.Span, buf []byte) error {
	body, err := d.source.Read(ctx, gap.Start, gap.End, d.patient)
	if err != nil {
		return err
	}
	defer body.Close()
	for at := gap.Start; at < gap.End; {
		n, err := body.Read(buf[:min(int64(len(buf)), gap.End-at)])
		if n > 0 {
			d.bytes.Add(int64(n))
			if _, err := a.partial.WriteAt(buf[:n], at); err != nil {
				return storeError{err}
			}
			at += int64(n)
		}
		if err == io.EOF && at < gap.End {
			return fault.New(fault.Unavailable, "the registry sent %d bytes too few of %s", gap.End-at, a.dl.blob.digest)
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}
