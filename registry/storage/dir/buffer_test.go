package dir

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// inMemory is how many bytes of the file are in the page cache.
func inMemory(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	ok(t, err)
	defer f.Close()
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0); errors.Is(err, unix.ENOSYS) {
		t.Skip("kernels before 6.5 do not tell what is in the page cache")
	} else {
		ok(t, err)
	}
	return int64(st.Cache) * int64(os.Getpagesize())
}

// TestPushKeepsOffThePageCache has a large blob leave only its end in the page
// cache, and a small one all that it is.
func TestPushKeepsOffThePageCache(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	var fs unix.Statfs_t
	ok(t, unix.Statfs(s.root, &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("tmpfs is the page cache")
	}
	for _, size := range []int64{8 << 20, 96 << 20} {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size >> 20)}).Read(data)
		u := create(t, s, "a")
		appendAll(t, u, data)
		ok(t, u.Commit(t.Context(), digest.FromBytes(data))) // nobody reads it
		got := inMemory(t, s.blobPath(digest.FromBytes(data)))
		if small := size <= checkpoint; small && got < size || !small && got > size/2 {
			t.Errorf("%d bytes of a blob of %d are in the page cache", got, size)
		}
	}
}

// TestLargeBuffers has those whose clients are fast share a few large buffers,
// and give them back when they are not any more.
func TestLargeBuffers(t *testing.T) {
	var all buffers
	var list []*buffer
	large := func() (n int) {
		for _, b := range list {
			if b.large != nil {
				n++
			}
		}
		return n
	}
	for range 2 * largeMost {
		b := all.begin()
		list = append(list, b)
		for range 2 {
			_, err := b.next(zeros{})
			ok(t, err)
		}
	}
	if got := large(); got != largeMost {
		t.Fatalf("%d of %d uploads have a large buffer, want %d", got, len(list), largeMost)
	}
	first := list[0]
	if _, err := first.next(strings.NewReader("x")); err != io.EOF {
		t.Fatal(err)
	}
	_, err := first.next(zeros{})
	ok(t, err)
	if first.large != nil {
		t.Error("an upload that is not fast any more keeps its large buffer")
	}
	for _, b := range list {
		b.end()
	}
	if n := len(all.large); n != 0 {
		t.Errorf("%d large buffers are not given back", n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
