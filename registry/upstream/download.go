package upstream

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// A download brings one blob from an upstream, once for all who want it:
//
//	upstream ──> spool, a file without a name ──┬──> readers, each at its own place
//	                                            └──> an upload of the storage
//
// Bytes are hashed as they come. The last one is withheld until the digest is
// right: whoever reads what is not the blob gets a body that breaks off. A
// download begins when the first byte is wanted, so a HEAD costs no more than
// its answer, and ends when all is stored.
type download struct {
	s      *Storage
	p      *peer
	path   string // at upstream
	digest digest.Digest
	size   int64
	key    string
	ready  chan struct{} // closed when upstream answered, or has failed
	wanted chan struct{} // closed when somebody reads
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	repos   []string // that get the blob; the first takes it from the wire
	readers int
	users   int // of the file
	spool   *os.File
	have    int64
	whole   bool          // and the digest is right
	failed  error         // for good
	more    chan struct{} // closed at each change
	reading bool
}

// downloads are those under way.
type downloads struct {
	mu     sync.Mutex
	byKey  map[string]*download // by upstream and digest
	places chan struct{}
}

func (t *downloads) init(n int) {
	t.byKey, t.places = map[string]*download{}, make(chan struct{}, n)
}

const (
	piece = 64 << 10
	// nearly is how much may be left of a download that is not worth stopping,
	// beside an eighth of it.
	nearly = 8 << 20
)

var errUnwanted = errors.New("nobody waits for the blob any longer")

// follow gives a reader of the blob, from a download under way or a new one.
func (s *Storage) follow(ctx context.Context, p *peer, path, repo string, d digest.Digest, size int64) (io.ReadSeekCloser, error) {
	key := p.Name + " " + string(d)
	asked := false
	for {
		other, dl, err := s.join(p, path, repo, key, d, size, asked)
		switch {
		case err != nil:
			return nil, err
		case dl != nil:
			return dl.await(ctx)
		}
		// Another repository of the upstream is having it. What this one has is not
		// told by that, nor by a manifest, which is its author's word.
		if err := p.hasBlob(ctx, path, d, size); err != nil {
			return nil, err
		}
		asked = true
		if _, err := s.Storage.Mount(ctx, repo, other, d); err == nil { // it came meanwhile
			b, err := s.Storage.Blob(ctx, repo, d)
			if err != nil {
				return nil, err
			}
			if err := s.arrived(ctx, repo, d); err != nil {
				return nil, errors.Join(err, b.Content.Close())
			}
			return b.Content, nil
		}
	}
}

// join adds a reader to the download of the key, or begins one. It gives the
// repository that has begun it, instead, if the reader's is another and proven
// does not say that this one has the blob too.
func (s *Storage) join(p *peer, path, repo, key string, d digest.Digest, size int64, proven bool) (other string, _ *download, err error) {
	t := &s.downloads
	t.mu.Lock()
	defer t.mu.Unlock()
	if dl := t.byKey[key]; dl != nil {
		dl.mu.Lock()
		defer dl.mu.Unlock()
		known := slices.Contains(dl.repos, repo)
		switch {
		case dl.size != size:
			return "", nil, fault.New(fault.Unavailable, "the blob %s is said to have %d bytes, and %d: try again later", d, size, dl.size)
		case !known && !proven:
			return dl.repos[0], nil, nil
		case !known:
			dl.repos = append(dl.repos, repo)
		}
		dl.readers++
		dl.users++
		return "", dl, nil
	}
	dl := &download{s: s, p: p, path: path, digest: d, size: size, key: key, repos: []string{repo}, readers: 1, users: 2,
		ready: make(chan struct{}), wanted: make(chan struct{}), more: make(chan struct{})}
	leave, err := s.enter()
	if err != nil {
		return "", nil, err
	}
	if dl.spool, err = spool(s.config.Spool); err != nil {
		leave()
		return "", nil, fault.New(fault.Unavailable, "cannot fetch the blob: %w", err)
	}
	ctx, cancel := context.WithCancelCause(s.life)
	dl.cancel = cancel
	t.byKey[key] = dl
	go func() {
		defer leave()
		defer cancel(nil)
		dl.run(ctx)
	}()
	return "", dl, nil
}

// spool is a file that nobody else finds, and that no crash leaves behind.
func spool(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "tare-registry-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hasBlob tells whether upstream's repository has the blob.
func (p *peer) hasBlob(ctx context.Context, path string, d digest.Digest, size int64) error {
	r, err := p.repository(path)
	if err != nil {
		return err
	}
	n, err := r.BlobSize(ctx, d)
	if err == nil && n != size {
		err = fault.New(fault.Unavailable, "the blob %s has %d bytes there, and not %d", d, n, size)
	}
	return p.failed(ctx, err)
}

// await waits for upstream's answer. Its caller is a reader already.
func (dl *download) await(ctx context.Context) (io.ReadSeekCloser, error) {
	select {
	case <-dl.ready:
	case <-ctx.Done():
		dl.leave()
		return nil, context.Cause(ctx)
	}
	dl.mu.Lock()
	err := dl.failed
	dl.mu.Unlock()
	if err != nil {
		dl.leave()
		return nil, err
	}
	return &follower{ctx: ctx, dl: dl, client: true}, nil
}

// run is the download's life. No reader can join it once it is forgotten.
func (dl *download) run(ctx context.Context) {
	var once sync.Once
	answered := func() { once.Do(func() { close(dl.ready) }) }
	err := dl.fetch(ctx, answered)
	dl.forget()
	if err != nil {
		dl.fail(err)
		if !errors.Is(err, errUnwanted) && dl.s.life.Err() == nil {
			dl.s.log.Warn("a blob could not be fetched", "upstream", dl.p.Name, "repository", dl.repos[0], "digest", dl.digest, "error", err)
		}
	}
	answered()
	dl.release()
}

// fetch asks for the blob, and moves it when somebody reads.
func (dl *download) fetch(ctx context.Context, answered func()) error {
	select {
	case dl.s.downloads.places <- struct{}{}:
		defer func() { <-dl.s.downloads.places }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r, err := dl.p.repository(dl.path)
	if err != nil {
		return err
	}
	body, err := r.Blob(ctx, ocispec.Descriptor{Digest: dl.digest, Size: dl.size}, 0, -1)
	if err != nil {
		return dl.p.failed(ctx, err)
	}
	defer body.Close()
	answered()
	select {
	case <-dl.wanted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	kept := make(chan error, 1)
	go func() { kept <- dl.keep(ctx) }()
	err = dl.move(ctx, body)
	if err != nil {
		dl.fail(err) // so that keep ends
	}
	if e := <-kept; err == nil && e != nil && ctx.Err() == nil {
		dl.s.log.Error("a blob that was fetched could not be stored", "repository", dl.repos[0], "digest", dl.digest, "error", e)
	}
	return err
}

// move brings the bytes to the spool.
func (dl *download) move(ctx context.Context, body io.Reader) error {
	sum, buf := dl.digest.Algorithm().Hash(), make([]byte, piece)
	for at := int64(0); ; {
		n, err := io.ReadFull(body, buf)
		if n > 0 {
			sum.Write(buf[:n])
			if _, err := dl.spool.WriteAt(buf[:n], at); err != nil {
				return fault.New(fault.Unavailable, "cannot fetch the blob: %w", err)
			}
			at += int64(n)
			dl.p.counts.received.Add(int64(n))
			dl.change(func() { dl.have = at })
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF && at == dl.size:
			return dl.verify(at, sum)
		case err != nil:
			return dl.p.failed(ctx, err)
		}
	}
}

// verify lets the last byte go to whoever waits for it, if all are right.
func (dl *download) verify(at int64, sum hash.Hash) error {
	if got := digest.NewDigest(dl.digest.Algorithm(), sum); at != dl.size || got != dl.digest {
		return fault.New(fault.Unavailable, "the upstream %s sent another blob than %s: %d bytes of the digest %s", dl.p.Name, dl.digest, at, got)
	}
	dl.change(func() { dl.whole = true })
	return nil
}

// keep stores the blob while it comes.
func (dl *download) keep(ctx context.Context) error {
	u, err := dl.s.Storage.CreateUpload(ctx, dl.repos[0], dl.digest.Algorithm())
	if err != nil {
		return err
	}
	defer u.Close()
	_, err = u.Append(ctx, &follower{ctx: ctx, dl: dl})
	if err != nil {
		return errors.Join(err, u.Cancel(context.WithoutCancel(ctx)))
	}
	if err := u.Commit(ctx, dl.digest); err != nil {
		return err
	}
	repos := dl.forget() // from here on it is found in the storage
	return dl.s.stored(ctx, repos[0], repos, dl.digest)
}

// forget keeps others from joining, and gives the repositories that have.
func (dl *download) forget() []string {
	t := &dl.s.downloads
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[dl.key] == dl {
		delete(t.byKey, dl.key)
	}
	dl.mu.Lock()
	defer dl.mu.Unlock()
	return dl.repos
}

func (dl *download) fail(err error) {
	dl.change(func() {
		if !dl.whole && dl.failed == nil {
			dl.failed = err
		}
	})
}

// change lets those who wait look again.
func (dl *download) change(f func()) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	f()
	close(dl.more)
	dl.more = make(chan struct{})
}

// release ends one use of the spool.
func (dl *download) release() {
	dl.mu.Lock()
	dl.users--
	last := dl.users == 0
	dl.mu.Unlock()
	if last {
		_ = dl.spool.Close() // nothing in it is needed any more
	}
}

// leave ends a reader. What nobody waits for ends after a while: at once, if
// nobody has read; late, if it is nearly done.
func (dl *download) leave() {
	dl.mu.Lock()
	dl.readers--
	left := dl.size - dl.have
	pause := dl.s.pace.linger
	switch {
	case !dl.reading:
		pause = 0
	case left <= max(nearly, dl.size/8):
		pause = dl.s.pace.finish
	}
	idle := dl.readers == 0 && !dl.whole && dl.failed == nil
	dl.mu.Unlock()
	switch {
	case idle && pause == 0:
		dl.abandon()
	case idle:
		time.AfterFunc(pause, dl.abandon)
	}
	dl.release()
}

// abandon ends the download if nobody reads.
func (dl *download) abandon() {
	t := &dl.s.downloads
	t.mu.Lock()
	defer t.mu.Unlock()
	dl.mu.Lock()
	defer dl.mu.Unlock()
	if dl.readers > 0 || dl.whole {
		return
	}
	if t.byKey[dl.key] == dl {
		delete(t.byKey, dl.key)
	}
	dl.cancel(errUnwanted)
}

// follower reads a download, and waits for what has not come. It is for one
// goroutine.
type follower struct {
	ctx    context.Context // of who reads
	dl     *download
	at     int64
	client bool // somebody waits for it
	closed bool
}

func (f *follower) Read(b []byte) (int, error) {
	dl := f.dl
	for {
		dl.mu.Lock()
		have, whole, failed, more := dl.have, dl.whole, dl.failed, dl.more
		if f.client && !dl.reading {
			dl.reading = true
			close(dl.wanted)
		}
		dl.mu.Unlock()
		if !whole {
			have = min(have, dl.size-1)
		}
		switch {
		case len(b) == 0:
			return 0, nil
		case f.at < have:
			n, err := dl.spool.ReadAt(b[:min(int64(len(b)), have-f.at)], f.at)
			if f.at += int64(n); n > 0 {
				err = nil
			}
			return n, err
		case whole:
			return 0, io.EOF
		case failed != nil:
			return 0, failed
		}
		select {
		case <-more:
		case <-f.ctx.Done():
			return 0, context.Cause(f.ctx)
		}
	}
}

func (f *follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.dl.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d: before the beginning", offset)
	}
	f.at = offset
	return offset, nil
}

// Close leaves the download to others.
func (f *follower) Close() error {
	if f.client && !f.closed {
		f.closed = true
		f.dl.leave()
	}
	return nil
}
