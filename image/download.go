package image

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

// downloads are the blobs that are being fetched. However many pulls want one,
// it is fetched once; it is given up when the last of them has gone.
type downloads struct {
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

func newDownloads(store *content.Store) *downloads {
	return &downloads{content: store, window: rateWindow, active: map[blob]*download{}, slots: slots{taken: map[string]int{}}}
}

// setLimit changes how many are fetched at a time from one registry.
func (d *downloads) setLimit(each int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slots.each = each
	d.slots.give()
}

// download is one blob on its way. It is tried until its bytes are right or
// nobody is left to ask.
type download struct {
	all    *downloads
	blob   blob
	cancel context.CancelFunc

	begun chan struct{} // closed when it has a slot
	done  chan struct{} // closed at the end, when err is set
	err   error

	supply supply   // guarded by all.mu
	slot   string   // the registry whose slot it has; guarded by all.mu
	latest *attempt // guarded by all.mu
}

// share is one pull's part in a download.
type share struct {
	*download
	from *supplier // its own
}

// want joins the download of the blob, or begins it, and lets it have the
// repository as one more to fetch from. Whoever wants it leaves it in the end.
func (d *downloads) want(ctx context.Context, desc ocispec.Descriptor, repo *remote.Repository) (*share, error) {
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
		return &share{dl, from}, nil
	}
	// It belongs to all who want it, not to the one who came first.
	ctx, cancel := context.WithCancel(context.Background())
	dl = &download{all: d, blob: b, cancel: cancel, begun: make(chan struct{}), done: make(chan struct{})}
	dl.latest = newAttempt(dl, false)
	from := dl.supply.join(repo, sources)
	d.active[b] = dl
	d.slots.ask(dl)
	d.running.Go(func() { dl.run(ctx) })
	return &share{dl, from}, nil
}

// leave takes the pull's repository away, and ends the download when nobody
// else wants it.
func (s *share) leave() {
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

// attempt is the latest one.
func (dl *download) attempt() *attempt {
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	return dl.latest
}

// wait returns at the end of an attempt. The blob is in the store then, unless
// the bytes were not right and another attempt has begun.
func (s *share) wait(ctx context.Context, a *attempt) (again bool, err error) {
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

// have is how many bytes have come.
func (dl *download) have() int64 {
	a := dl.attempt()
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
	for a := dl.attempt(); a != nil; {
		a = dl.ended(a, a.run(ctx))
	}
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	dl.all.slots.release(dl)
}

// ended tells all who wait of an attempt's end, and returns the next one if
// there is to be one.
func (dl *download) ended(a *attempt, err error) (next *attempt) {
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

// read returns the blob as it comes, unchecked; to one reader at a time, as each
// takes some memory. The others read what is stored in the end, which nil stands
// for. done must be called.
func (a *attempt) read(ctx context.Context) (r io.Reader, done func(), err error) {
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

func (a *attempt) follow(ctx context.Context) (r io.Reader, done func()) {
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
