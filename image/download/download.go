// Package download fetches blobs from registries into the store, each once however
// many want it and from whoever of their registries brings it best:
//
//	Downloads  all that are on their way, as many at a time as their slots (slots.go)
//	  Share    one pull's part in a download, with its repository to draw from (supply.go)
//	  Attempt  one try at the bytes, by ranges, which can be read while they come (attempt.go)
//
// What is whole from the start survives this process, and is gone on from.
package download

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/remote"
)

// Downloads are the blobs that are being fetched. However many pulls want one,
// it is fetched once; it is given up when the last of them has gone.
type Downloads struct {
	content *content.Store
	window  time.Duration // rateWindow
	running sync.WaitGroup

	mu     sync.Mutex
	active map[blob]*download
	slots  slots
}

// blob is what a download is known by. Who says that a blob has another size
// than it has waits for his own.
type blob struct {
	digest digest.Digest
	size   int64
}

// New begins with nothing under way, and no limit that lets anything be.
func New(store *content.Store) *Downloads {
	return &Downloads{content: store, window: rateWindow, active: map[blob]*download{}, slots: slots{taken: map[string]int{}}}
}

// SetLimit changes how many are fetched at a time from one registry.
func (d *Downloads) SetLimit(each int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slots.each = each
	d.slots.give()
}

// Wait returns when nothing is under way any more.
func (d *Downloads) Wait() { d.running.Wait() }

// download is one blob on its way. It is tried until its bytes are right or
// nobody is left to ask.
type download struct {
	all    *Downloads
	blob   blob
	cancel context.CancelFunc

	begun chan struct{} // closed when it has a slot
	done  chan struct{} // closed at the end, when err is set
	err   error

	supply supply   // guarded by all.mu
	slot   string   // the registry whose slot it has; guarded by all.mu
	latest *Attempt // guarded by all.mu
}

// Share is one pull's part in a download.
type Share struct {
	*download
	from *supplier // its own
}

// Begun is closed when the blob is being fetched, and no longer waits for its turn.
func (s *Share) Begun() <-chan struct{} { return s.begun }

// Done is closed at the end, of which Err tells then.
func (s *Share) Done() <-chan struct{} { return s.done }

// Err is nil if the blob is in the store. It is to be called after the end.
func (s *Share) Err() error { return s.err }

// Want joins the download of the blob, or begins it, and lets it have the
// repository as one more to fetch from. Whoever wants it leaves it in the end.
func (d *Downloads) Want(ctx context.Context, desc ocispec.Descriptor, repo *remote.Repository) (*Share, error) {
	sources, err := repo.Sources(ctx, desc)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := blob{desc.Digest, desc.Size}
	dl := d.active[b]
	if dl != nil {
		from := dl.supply.join(repo, sources)
		d.slots.give()
		return &Share{dl, from}, nil
	}
	// It belongs to all who want it, not to the one who came first.
	ctx, cancel := context.WithCancel(context.Background())
	dl = &download{all: d, blob: b, cancel: cancel, begun: make(chan struct{}), done: make(chan struct{})}
	dl.latest = newAttempt(dl, false)
	from := dl.supply.join(repo, sources)
	d.active[b] = dl
	d.slots.ask(dl)
	d.running.Go(func() { dl.run(ctx) })
	return &Share{dl, from}, nil
}

// Leave takes the pull's repository away, and ends the download when nobody
// else wants it.
func (s *Share) Leave() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.supply.leave(s.from); len(s.supply.list) == 0 {
		s.cancel()
		s.closeLocked()
	}
}

// closeLocked makes who comes now begin anew.
func (dl *download) closeLocked() {
	if dl.all.active[dl.blob] == dl {
		delete(dl.all.active, dl.blob)
	}
}

// Attempt is the latest one.
func (dl *download) Attempt() *Attempt {
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	return dl.latest
}

// Wait returns at the end of an attempt. The blob is in the store then, unless
// the bytes were not right and another attempt has begun.
func (s *Share) Wait(ctx context.Context, a *Attempt) (again bool, err error) {
	select {
	case <-a.over:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	select {
	case <-s.done:
	default:
		return true, nil
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.err == errNoSource && s.from.failure != nil {
		return false, s.from.failure
	}
	return false, s.err
}

// Have is how many bytes have come.
func (dl *download) Have() int64 {
	a := dl.Attempt()
	select {
	case <-a.opened:
	default:
		return 0
	}
	if a.partial == nil {
		return 0
	}
	return a.partial.Have()
}

func (dl *download) run(ctx context.Context) {
	defer dl.cancel()
	select {
	case <-dl.begun:
	case <-ctx.Done(): // which the attempt says
	}
	for a := dl.Attempt(); a != nil; {
		a = dl.ended(a, a.run(ctx))
	}
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	dl.all.slots.release(dl)
}

// ended tells all who wait of an attempt's end, and returns the next one if
// there is to be one.
func (dl *download) ended(a *Attempt, err error) (next *Attempt) {
	if a.partial != nil && err != nil {
		a.partial.Fail(err)
	}
	dl.all.mu.Lock()
	if err == errWrong {
		next = newAttempt(dl, a.alone)
		dl.latest = next
	} else {
		dl.err = err
		dl.closeLocked()
		close(dl.done)
	}
	a.err = err
	if a.partial == nil {
		close(a.opened)
	}
	close(a.over)
	dl.all.mu.Unlock()
	if a.partial != nil {
		a.readers.Wait()
		a.partial.Close()
	}
	return next
}

// Read returns the blob as it comes, unchecked; to one reader at a time, as each
// takes some memory. The others read what is stored in the end, which nil stands
// for. done must be called.
func (a *Attempt) Read(ctx context.Context) (r io.Reader, done func(), err error) {
	select {
	case <-a.opened:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	if r, done = a.follow(ctx); r != nil {
		return r, done, nil
	}
	select {
	case <-a.over:
		return nil, nil, a.err
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
}

func (a *Attempt) follow(ctx context.Context) (r io.Reader, done func()) {
	a.dl.all.mu.Lock()
	defer a.dl.all.mu.Unlock()
	select {
	case <-a.over:
		return nil, nil
	default:
	}
	if a.followed {
		return nil, nil
	}
	a.followed = true
	a.readers.Add(1)
	r, stop := a.partial.Follow(ctx)
	return r, func() { stop(); a.readers.Done() }
}

// draw begins to draw from whom there is to draw from; nil when nobody is left,
// and nobody comes any more.
func (dl *download) draw(ctx context.Context) (*draw, context.Context) {
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	d := dl.supply.next()
	if d == nil {
		dl.closeLocked()
		return nil, ctx
	}
	dl.supply.now = d
	ctx, d.cancel = context.WithCancelCause(ctx)
	return d, ctx
}

// drawn takes note of how a draw ended: well, when err is nil.
func (dl *download) drawn(d *draw, cause, err error, alone bool) {
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	dl.supply.now = nil
	switch {
	case err == nil, cause == errGone:
	case cause == errOutpaced:
		d.from.later = d.from.later || alone // else the two would begin anew by turns, for ever
	default:
		dl.supply.failed(d, err)
	}
}

// watch ends a draw when another one is likely to bring more.
func (dl *download) watch(ctx context.Context, d *draw) {
	tick := time.NewTicker(dl.all.window)
	defer tick.Stop()
	begun, before := time.Now(), int64(0)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		came, now := d.bytes.Load(), time.Now()
		rate := int64(float64(came-before) / now.Sub(begun).Seconds())
		dl.all.mu.Lock()
		outpaced := dl.supply.outpaced(d.from, rate)
		dl.all.mu.Unlock()
		if outpaced {
			d.cancel(errOutpaced)
			return
		}
		begun, before = now, came
	}
}

// errWrong is the end of an attempt whose bytes were not right.
var errWrong = errors.New("what was fetched is wrong, and is fetched anew")
