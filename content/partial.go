package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// partialAge is how long what was fetched of a blob waits for the fetch to go
// on. What nobody asked for again by then is dropped by the next collection.
const partialAge = 24 * time.Hour

// block is the unit in which a file system tells what of a file was written.
const block = 4096

// errUnverified is returned by a Commit before its time.
var errUnverified = errors.New("content was not verified before it was to be kept")

// Span is the bytes from Start up to, not including, End.
type Span struct{ Start, End int64 }

// Partial is a blob on its way, whose digest and size are known beforehand. Its
// bytes may be written in any order; readers follow what is whole from the
// start. What was written outlives the process: the file is sparse, and where
// it has data it was written.
type Partial struct {
	store  *Store
	f      *os.File
	digest digest.Digest
	size   int64
	claim  *claim

	mu       sync.Mutex
	grown    *sync.Cond
	have     []Span // sorted, apart from each other
	resumed  int64  // bytes that an earlier process wrote
	verified bool
	kept     bool  // by Commit
	err      error // why no more will come
}

// Partial opens the blob to be written, with what was fetched of it before. It
// is fault.Conflict while somebody else has it open. Who says that it has another
// size writes another file.
func (s *Store) Partial(d digest.Digest, size int64) (*Partial, error) {
	if err := d.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "%q is not a digest: %w", d, err)
	}
	if size < 0 {
		return nil, fault.New(fault.Invalid, "content %s is said to have %d bytes", d, size)
	}
	claim, ok := s.fetching.take(s.partialPath(d, size))
	if !ok {
		return nil, fault.New(fault.Conflict, "content %s is being fetched already", d)
	}
	p, err := s.openPartial(d, size)
	if err != nil {
		return nil, errors.Join(err, claim.release(false))
	}
	p.claim = claim
	return p, nil
}

// claims are the files of partial/ that are somebody's.
type claims struct {
	mu   sync.Mutex
	held map[string]*claim // by path
}

type claim struct {
	all     *claims
	path    string
	settled bool // what came whole need not be kept here; guarded by all.mu
	ended   chan struct{}
}

// take makes what was fetched of a blob one's own, unless it is somebody's.
func (c *claims) take(path string) (own *claim, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[path] != nil {
		return nil, false
	}
	if c.held == nil {
		c.held = map[string]*claim{}
	}
	own = &claim{all: c, path: path, ended: make(chan struct{})}
	c.held[path] = own
	return own, true
}

// settle removes a file that nobody has. Who has it removes it in the end, if it
// is a whole blob by then.
func (c *claims) settle(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if own := c.held[path]; own != nil {
		own.settled = true
		return nil
	}
	return remove(path)
}

// release ends the claim.
func (c *claim) release(whole bool) (err error) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if c.settled && whole {
		err = remove(c.path)
	}
	delete(c.all.held, c.path)
	close(c.ended)
	return err
}

// PartialClosed returns when nobody has the blob open to be written.
func (s *Store) PartialClosed(ctx context.Context, d digest.Digest, size int64) error {
	s.fetching.mu.Lock()
	claim := s.fetching.held[s.partialPath(d, size)]
	s.fetching.mu.Unlock()
	if claim == nil {
		return nil
	}
	select {
	case <-claim.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Store) openPartial(d digest.Digest, size int64) (*Partial, error) {
	path, flags, whole := s.partialPath(d, size), os.O_RDWR|os.O_CREATE, false
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == nil && st.Nlink > 1 { // see Commit; never to be written
		if whole = st.Size == size; whole {
			flags = os.O_RDONLY
		} else if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	p := &Partial{store: s, f: f, digest: d, size: size}
	p.grown = sync.NewCond(&p.mu)
	if whole {
		p.have = []Span{{0, size}}
	} else if p.have, err = written(f, size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for _, span := range p.have {
		p.resumed += span.End - span.Start
	}
	return p, nil
}

func (s *Store) partialPath(d digest.Digest, size int64) string {
	return s.path(filepath.Join("partial", fmt.Sprintf("%s-%s-%d", d.Algorithm(), d.Encoded(), size)))
}

// written asks the file system which parts of the file have data, lseek(2).
// The first block behind a hole and the last one before may have been written in
// part: they do not count. Whether the bytes are right is for the digest to say.
func written(f *os.File, size int64) ([]Span, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > size {
		return nil, f.Truncate(0) // of another promise
	}
	var spans []Span
	for at := int64(0); at < st.Size(); {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return nil, &fs.PathError{Op: "seek", Path: f.Name(), Err: err}
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, &fs.PathError{Op: "seek", Path: f.Name(), Err: err}
		}
		at = end
		if start > 0 {
			start += block
		}
		if end < st.Size() {
			end -= block
		}
		if end > start {
			spans = append(spans, Span{start, end})
		}
	}
	return spans, nil
}

// Size is how many bytes the blob will have.
func (p *Partial) Size() int64 { return p.size }

// Have is how many bytes are there, wherever.
func (p *Partial) Have() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.have {
		n += s.End - s.Start
	}
	return n
}

// Resumed is how many bytes were there when the blob was opened.
func (p *Partial) Resumed() int64 { return p.resumed }

// Missing gives what is to be written yet, in pieces of at most max bytes and in
// their order. They are made one by one: the size is anybody's word, and a list
// for all of it may be larger than the memory.
func (p *Partial) Missing(max int64) iter.Seq[Span] {
	p.mu.Lock()
	have := append(slices.Clone(p.have), Span{p.size, p.size})
	p.mu.Unlock()
	return func(yield func(Span) bool) {
		at := int64(0)
		for _, s := range have {
			for at < s.Start {
				gap := Span{at, at + min(s.Start-at, max)}
				if !yield(gap) {
					return
				}
				at = gap.End
			}
			at = s.End
		}
	}
}

// WriteAt writes bytes of the blob at their place.
func (p *Partial) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(b)) > p.size {
		return 0, fault.New(fault.Invalid, "content %s has more than the %d bytes that it is said to have", p.digest, p.size)
	}
	n, err := p.f.WriteAt(b, off)
	if n > 0 {
		p.mu.Lock()
		p.have = join(p.have, Span{off, off + int64(n)})
		p.mu.Unlock()
		p.grown.Broadcast()
	}
	return n, err
}

// join adds a span to a sorted list.
func join(list []Span, s Span) []Span {
	first, _ := slices.BinarySearchFunc(list, s.Start, func(o Span, start int64) int {
		if o.End < start {
			return -1
		}
		return 1
	})
	last := first
	for last < len(list) && list[last].Start <= s.End {
		s.Start, s.End = min(s.Start, list[last].Start), max(s.End, list[last].End)
		last++
	}
	return slices.Replace(list, first, last, s)
}

// Fail tells the readers that nothing more will come, and why.
func (p *Partial) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.grown.Broadcast()
}

// whole waits until bytes beyond off are there in one piece from the start and
// returns how far it goes; io.EOF at the end.
func (p *Partial) whole(ctx context.Context, off int64) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case off == p.size:
			return off, io.EOF
		case len(p.have) > 0 && p.have[0].Start == 0 && p.have[0].End > off:
			return p.have[0].End, nil
		case p.err != nil:
			return off, p.err
		case ctx.Err() != nil:
			return off, ctx.Err()
		}
		p.grown.Wait()
	}
}

// Follow returns a reader of the blob from its start that waits for bytes to
// be written. It ends with the error of Fail or of ctx, whose end is noticed
// until close is called. The bytes are not checked.
func (p *Partial) Follow(ctx context.Context) (r io.Reader, close func()) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grown.Broadcast()
	})
	return &follower{ctx: ctx, p: p}, func() { stop() }
}

type follower struct {
	ctx context.Context
	p   *Partial
	off int64
}

func (r *follower) Read(b []byte) (int, error) {
	end, err := r.p.whole(r.ctx, r.off)
	if err != nil {
		return 0, err
	}
	n, err := r.p.f.ReadAt(b[:min(int64(len(b)), end-r.off)], r.off)
	r.off += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, err
}

// Verify follows the blob to its end and checks its digest (fault.Invalid). To
// be called beside the writing, so that hashing costs no time of its own.
func (p *Partial) Verify(ctx context.Context) error {
	if !p.digest.Algorithm().Available() {
		return fault.New(fault.Invalid, "unsupported digest algorithm %q", p.digest.Algorithm())
	}
	r, done := p.Follow(ctx)
	defer done()
	sum := p.digest.Algorithm().Digester()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum.Hash()}, r, make([]byte, 256<<10)); err != nil {
		return err
	}
	if got := sum.Digest(); got != p.digest {
		return fault.New(fault.Invalid, "content has the digest %s instead of %s", got, p.digest)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verified = true
	return nil
}

// keptFrom is the size in bytes from which on a blob that came whole is worth
// keeping when the image that it came for does not.
const keptFrom = 64 << 10

// Commit puts the blob at its place, after Verify. Its bytes are on disk then;
// its name is when the store was synced. It stays in partial/ as well, by a
// second name of the file, until Settle: should it be collected because the rest
// of its image does not come, or the process ends, the next one has it.
func (p *Partial) Commit() error {
	p.mu.Lock()
	verified := p.verified
	p.mu.Unlock()
	if !verified {
		return errUnverified
	}
	path, err := p.store.blobPath(p.digest)
	if err != nil {
		return err
	}
	if err := errors.Join(p.f.Chmod(0o444), p.f.Sync()); err != nil {
		return fmt.Errorf("cannot keep content %s: %w", p.digest, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if p.size < keptFrom || os.Link(p.f.Name(), path) != nil {
		if err := os.Rename(p.f.Name(), path); err != nil { // small, or there already, or without second names
			return err
		}
	}
	p.store.forgotten.Delete(p.digest)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = true
	return nil
}

// Settle ends the keeping of what was fetched for the targets: they are named.
// What somebody still has open goes when that is closed.
func (s *Store) Settle(targets ...ocispec.Descriptor) error {
	for _, t := range targets {
		err := s.Reach(t, func(d ocispec.Descriptor, size int64) error {
			return s.fetching.settle(s.partialPath(d.Digest, size))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Drop removes what was written, which was not right.
func (p *Partial) Drop() error { return os.Remove(p.f.Name()) }

// Close ends the use of the Partial by whoever opened it; what was written and
// not committed stays for the next one. Nobody may be following any more.
func (p *Partial) Close() error {
	p.mu.Lock()
	kept := p.kept
	p.mu.Unlock()
	return errors.Join(p.f.Close(), p.claim.release(kept))
}

// DropPartials removes what was fetched of blobs that have not come whole, that
// nobody is fetching and nobody wrote to for the time, and returns how many
// bytes that were.
func (s *Store) DropPartials(unused time.Duration) (freed int64, err error) {
	dir := s.path("partial")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		n, e := s.dropPartial(filepath.Join(dir, e.Name()), unused)
		freed, err = freed+n, errors.Join(err, e)
	}
	return freed, err
}

func (s *Store) dropPartial(path string, unused time.Duration) (freed int64, err error) {
	claim, ok := s.fetching.take(path)
	if !ok {
		return 0, nil
	}
	defer claim.release(false)
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || time.Since(time.Unix(st.Mtim.Unix())) < unused {
		return 0, nil
	}
	if st.Nlink == 1 { // else it is a blob, too
		freed = st.Blocks * 512
	}
	return freed, os.Remove(path)
}
