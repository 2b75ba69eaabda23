package image

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

// errStale is what a fetch ends with that went on from what an earlier process
// had left, and came to another digest: after power loss that may be wrong.
var errStale = errors.New("what was fetched earlier is damaged")

// blobSource is where blobs come from; *remote.Repository is one.
type blobSource interface {
	// Blob reads the bytes from up to, not including, to.
	Blob(ctx context.Context, d ocispec.Descriptor, from, to int64) (io.ReadCloser, error)
}

// downloads are the blobs that are being fetched. However many pulls want one,
// it is fetched once; it is given up when the last of them has gone.
type downloads struct {
	content *content.Store
	slots   chan struct{} // one token for each blob that may be fetched at a time
	running sync.WaitGroup

	mu     sync.Mutex
	active map[digest.Digest]*download
}

func newDownloads(store *content.Store, limit int) *downloads {
	return &downloads{content: store, slots: make(chan struct{}, limit), active: map[digest.Digest]*download{}}
}

// download is one blob on its way.
type download struct {
	all    *downloads
	desc   ocispec.Descriptor
	source blobSource
	cancel context.CancelFunc

	opened  chan struct{} // closed when partial is set, or at the end
	begun   chan struct{} // closed when it has its turn, or at the end
	partial *content.Partial
	done    chan struct{} // closed at the end, when err is set
	err     error

	waiting int            // pulls that want it, guarded by all.mu
	readers sync.WaitGroup // of partial; added to under all.mu
}

// want joins the download of the blob, or begins it. mine tells that it was
// begun. Whoever wants it leaves it in the end.
func (d *downloads) want(desc ocispec.Descriptor, source blobSource) (dl *download, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if dl = d.active[desc.Digest]; dl != nil {
		dl.waiting++
		return dl, false
	}
	// It belongs to all who want it, not to the one who came first.
	ctx, cancel := context.WithCancel(context.Background())
	dl = &download{all: d, desc: desc, source: source, cancel: cancel, waiting: 1,
		opened: make(chan struct{}), begun: make(chan struct{}), done: make(chan struct{})}
	d.active[desc.Digest] = dl
	d.running.Add(1)
	go dl.run(ctx)
	return dl, true
}

// leave ends the download when nobody else wants it.
func (dl *download) leave() {
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	if dl.waiting--; dl.waiting == 0 {
		dl.cancel()
		if dl.all.active[dl.desc.Digest] == dl { // who comes now begins anew
			delete(dl.all.active, dl.desc.Digest)
		}
	}
}

// wait returns when the blob is in the store.
func (dl *download) wait(ctx context.Context) error {
	select {
	case <-dl.done:
		return dl.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// have is how many bytes have come.
func (dl *download) have() int64 {
	select {
	case <-dl.opened:
	default:
		return 0
	}
	if dl.partial == nil {
		return 0
	}
	return dl.partial.Have()
}

// read returns the blob as it comes, unchecked. close must be called.
func (dl *download) read(ctx context.Context) (r io.Reader, done func(), err error) {
	select {
	case <-dl.opened:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	dl.all.mu.Lock()
	defer dl.all.mu.Unlock()
	select {
	case <-dl.done:
		if dl.err != nil {
			return nil, nil, dl.err
		}
		f, _, err := dl.all.content.Open(dl.desc.Digest)
		if err != nil {
			return nil, nil, err
		}
		return f, func() { f.Close() }, nil
	default:
	}
	dl.readers.Add(1)
	r, stop := dl.partial.Follow(ctx)
	return r, func() { stop(); dl.readers.Done() }, nil
}

func (dl *download) run(ctx context.Context) {
	defer dl.all.running.Done()
	err := dl.open(ctx)
	if err == nil {
		err = dl.fetch(ctx)
	}
	dl.cancel()
	if dl.partial != nil && err != nil {
		dl.partial.Fail(err)
	}
	dl.all.mu.Lock()
	if dl.all.active[dl.desc.Digest] == dl {
		delete(dl.all.active, dl.desc.Digest)
	}
	dl.err = err
	for _, c := range []chan struct{}{dl.opened, dl.begun} {
		select {
		case <-c:
		default:
			close(c)
		}
	}
	close(dl.done)
	dl.all.mu.Unlock()
	if dl.partial != nil {
		dl.readers.Wait()
		dl.partial.Close()
	}
}

// open waits for the one who had the blob open before and is about to give it up.
func (dl *download) open(ctx context.Context) error {
	for {
		p, err := dl.all.content.Partial(dl.desc.Digest, dl.desc.Size)
		if err == nil {
			dl.partial = p
			close(dl.opened)
			return nil
		}
		if !errors.Is(err, fault.Conflict) {
			return err
		}
		if err := dl.all.content.PartialClosed(ctx, dl.desc.Digest); err != nil {
			return err
		}
	}
}

func (dl *download) fetch(ctx context.Context) error {
	select {
	case dl.all.slots <- struct{}{}:
		defer func() { <-dl.all.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	close(dl.begun)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return dl.transfer(ctx) })
	g.Go(func() error { return dl.partial.Verify(ctx) })
	err := g.Wait()
	if errors.Is(err, fault.Invalid) && dl.partial.Have() == dl.desc.Size {
		if e := dl.partial.Drop(); e != nil {
			return e
		}
		if dl.partial.Resumed() > 0 {
			return errStale
		}
	}
	if err != nil {
		return err
	}
	return dl.partial.Commit()
}

// transfer fetches what is missing, a large blob in several ranges at once and
// in their order, so that readers need not wait for the last of them. A registry
// that knows no ranges is read once from the first byte that is missing.
func (dl *download) transfer(ctx context.Context) error {
	streams, piece := 1, max(dl.desc.Size, 1)
	if dl.desc.Size >= rangedFrom {
		streams, piece = ranges, pieceSize
	}
	err := dl.pieces(ctx, streams, piece)
	if !errors.Is(err, remote.ErrNoRanges) {
		return err
	}
	for gap := range dl.partial.Missing(piece) {
		return dl.piece(ctx, content.Span{Start: gap.Start, End: dl.desc.Size}, make([]byte, copySize))
	}
	return nil
}

func (dl *download) pieces(ctx context.Context, streams int, piece int64) error {
	gaps := make(chan content.Span)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(gaps)
		for gap := range dl.partial.Missing(piece) {
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
				if err := dl.piece(ctx, gap, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (dl *download) piece(ctx context.Context, gap content.Span, buf []byte) error {
	body, err := dl.source.Blob(ctx, dl.desc, gap.Start, gap.End)
	if err != nil {
		return err
	}
	defer body.Close()
	for at := gap.Start; at < gap.End; {
		n, err := body.Read(buf[:min(int64(len(buf)), gap.End-at)])
		if n > 0 {
			if _, err := dl.partial.WriteAt(buf[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
		if err == io.EOF && at < gap.End {
			return fault.New(fault.Unavailable, "the registry sent %d bytes too few of %s", gap.End-at, dl.desc.Digest)
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}
