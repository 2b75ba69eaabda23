package dir

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Uploads of the same bytes share a body, so that these are written once:
//
//	upload 1  aaaaaaaaaaaaaaaa|            size: how much of the body is the upload's
//	upload 2  aaaaaaaaaa|
//	body      aaaaaaaaaaaaaaaa             grows at its end only, by whoever is there first
//
// An upload is always equal to its body up to its size. What it takes next is
// compared with the bytes that the body has there, and written where it has none.
// At the first byte that differs it goes on in a body of its own, a branch,
// which begins with a copy; others that differ in the same way find it there.
//
// On disk a body is a file, and each of its uploads a name of it: the kernel
// counts them, and a restart has nothing to repair. A file that became a blob
// loses its permission to be written, and is sealed by that.
type bodies struct {
	mu     sync.Mutex
	seed   maphash.Seed
	open   map[uint64]*body // by inode
	starts map[uint64]*body // by the hash of their first bytes: where to try
}

// startSize is how many bytes an upload must bring at once to be compared with others.
const startSize = 32 << 10

// body is a file that at least one open upload uses.
type body struct {
	f        *os.File
	inode    uint64
	start    uint64 // hash of the first startSize bytes, 0 if there were less
	users    int    // guarded by bodies.mu
	branches []branch
	parent   *body

	mu     sync.Mutex // held to write
	size   atomic.Int64
	sealed bool
	lost   atomic.Bool // by the disk: see spoil
}

// branch is a body that is equal to another one up to at and differs there.
type branch struct {
	at   int64
	body *body
}

var errNoSharing = errors.New("bodies cannot be shared here")

func (t *bodies) init() {
	t.seed, t.open, t.starts = maphash.MakeSeed(), map[uint64]*body{}, map[uint64]*body{}
}

func (t *bodies) startOf(p []byte) uint64 {
	if len(p) < startSize {
		return 0
	}
	return max(maphash.Bytes(t.seed, p[:startSize]), 1)
}

// load uses the body of an upload that was closed.
func (t *bodies) load(path string) (*body, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) { // it is sealed, and this process is not root
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	return t.adopt(f)
}

// adopt uses the body that the file is. What the file is now is asked while
// nobody can begin or end to use it: whoever had it may have sealed it just before.
func (t *bodies) adopt(f *os.File) (*body, error) {
	first := make([]byte, startSize)
	n, _ := f.ReadAt(first, 0)
	t.mu.Lock()
	defer t.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if b := t.open[st.Ino]; b != nil {
		b.users++
		return b, f.Close()
	}
	b := &body{f: f, inode: st.Ino, users: 1, start: t.startOf(first[:n]), sealed: st.Mode&0o200 == 0}
	b.size.Store(st.Size)
	t.addLocked(b)
	return b, nil
}

// create makes an empty body for one user.
func (t *bodies) create(path string, start uint64) (*body, error) {
	// What a crash left there may be another name of a blob: it must not be cut.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &body{f: f, inode: st.Ino, users: 1, start: start}, nil
}

func (t *bodies) addLocked(b *body) {
	t.open[b.inode] = b
	if b.start != 0 && t.starts[b.start] == nil {
		t.starts[b.start] = b
	}
}

// release ends one use of the body.
func (t *bodies) release(b *body) error {
	t.mu.Lock()
	b.users--
	last := b.users == 0
	if last {
		t.hideLocked(b)
		delete(t.open, b.inode)
	}
	t.mu.Unlock()
	if !last {
		return nil
	}
	return b.f.Close()
}

// hideLocked keeps others from finding the body.
func (t *bodies) hideLocked(b *body) {
	if t.starts[b.start] == b {
		delete(t.starts, b.start)
	}
	if b.parent != nil {
		b.parent.branches = slices.DeleteFunc(b.parent.branches, func(o branch) bool { return o.body == b })
		b.parent = nil
	}
	for _, o := range b.branches {
		o.body.parent = nil
	}
	b.branches = nil
}

// sibling uses a body that may go on with p where from, of which off bytes are
// shared, does not; nil from is the beginning of all. Those that were tried are
// left out. When there is none, make is called while nobody else looks.
func (t *bodies) sibling(from *body, off int64, start uint64, tried []*body, make func() (*body, error)) (b *body, made bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from == nil {
		if b := t.starts[start]; b != nil && !slices.Contains(tried, b) {
			b.users++
			return b, false, nil
		}
	} else {
		for _, o := range from.branches {
			if o.at == off && !slices.Contains(tried, o.body) {
				o.body.users++
				return o.body, false, nil
			}
		}
	}
	b, err = make()
	if err != nil {
		return nil, false, err
	}
	b.mu.Lock() // until it has what makes it differ
	if from != nil {
		b.parent, from.branches = from, append(from.branches, branch{off, b})
	}
	t.addLocked(b)
	return b, true, nil
}

// shared tells whether several uploads are at the body.
func (t *bodies) shared(b *body) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return b.users > 1
}

// alone tells whether one upload is the only one that has the body, here and on
// disk. From then on nobody finds it.
func (t *bodies) alone(b *body) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	var st unix.Stat_t
	if b.users > 1 || unix.Fstat(int(b.f.Fd()), &st) != nil || st.Nlink != 1 {
		return false
	}
	t.hideLocked(b)
	return true
}

// link gives the body another name.
func (b *body) link(path string) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", b.f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, fs.ErrExist) {
		if err = os.Remove(path); err == nil {
			return b.link(path)
		}
	}
	return err
}

var scratch = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// same tells how many bytes of p, which the body has from off on, it has in the
// same way.
func (b *body) same(p []byte, off int64) (n int, err error) {
	buf := scratch.Get().(*[32 << 10]byte)
	defer scratch.Put(buf)
	for n < len(p) {
		part := buf[:min(len(p)-n, len(buf))]
		if _, err := b.f.ReadAt(part, off+int64(n)); err == io.EOF {
			return n, errUnsynced // it was cut meanwhile
		} else if err != nil {
			return n, err
		}
		if want := p[n : n+len(part)]; !bytes.Equal(part, want) {
			for i := range part {
				if part[i] != want[i] {
					return n + i, nil
				}
			}
		}
		n += len(part)
	}
	return n, nil
}

// take adds bytes to an upload that has off bytes of the body: it compares what
// is there and appends the rest. It returns early where the upload can go on only
// in another body.
func (b *body) take(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		at := off + int64(n)
		if there := b.size.Load() - at; there > 0 {
			want := int(min(there, int64(len(p)-n)))
			var k int
			k, err = b.same(p[n:n+want], at)
			if n += k; k < want {
				break
			}
			continue
		}
		var k int
		var end bool
		k, end, err = b.append(p[n:], at)
		if n += k; end {
			break
		}
	}
	return n, err
}

// append writes at the end of the body, unless somebody else was faster. It
// says when the body has come to its end.
func (b *body) append(p []byte, off int64) (n int, end bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost.Load() {
		return 0, false, errUnsynced
	}
	if b.size.Load() != off {
		return 0, false, nil
	}
	if b.sealed {
		return 0, true, nil
	}
	n, err = b.f.WriteAt(p, off)
	b.size.Add(int64(n))
	return n, false, err
}

// fill makes a new body a copy of the first bytes of another one, and appends.
func (b *body) fill(from *body, off int64, p []byte) (n int, err error) {
	if from != nil {
		if err := copyRange(b.f, from.f, off); err != nil {
			return 0, err
		}
		// What was read may not be what was written.
		if err := told(from.f); err != nil {
			return 0, err
		}
		if from.lost.Load() {
			return 0, errUnsynced
		}
	}
	n, err = b.f.WriteAt(p, off)
	if n > 0 {
		b.size.Store(off + int64(n))
	}
	return n, err
}

// copyRange copies the first n bytes of a file, without moving them through this
// process where the file system can.
func copyRange(to, from *os.File, n int64) error {
	for at := int64(0); at < n; {
		in, out := at, at
		k, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, int(min(n-at, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || k == 0 {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(to, at)}, io.NewSectionReader(from, at, n-at), make([]byte, 64<<10))
			return err
		}
		at += int64(k)
	}
	return nil
}

// same tells whether the file of the blob, which has the size of the upload, has
// its bytes too. What the disk has spoiled is healed by a push.
func (u *upload) same(d digest.Digest) bool {
	if u.body == nil {
		return true
	}
	f, err := os.Open(u.s.blobPath(d))
	if err != nil {
		return false
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	if st.Ino == u.body.inode {
		return true
	}
	buf := smalls.Get().(*[smallBuffer]byte)
	defer smalls.Put(buf)
	for at := int64(0); at < u.state.Size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), u.state.Size-at)], at)
		if n == 0 {
			return err == nil
		}
		if k, err := u.body.same(buf[:n], at); err != nil || k < n {
			return false
		}
		at += int64(n)
	}
	return true
}
