package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
)

// onDisk is how many bytes the files below the directories take, each file once.
func onDisk(t testing.TB, root string) (n int64) {
	t.Helper()
	seen := map[uint64]bool{}
	ok(t, filepath.Walk(root, func(path string, st os.FileInfo, err error) error {
		if err != nil || filepath.Base(path) == database || !st.Mode().IsRegular() {
			return nil // removed meanwhile
		}
		if ino := st.Sys().(*syscall.Stat_t).Ino; !seen[ino] {
			seen[ino] = true
			n += st.Size()
		}
		return nil
	}))
	return n
}

func create(t testing.TB, s *Storage, repo string) *upload {
	t.Helper()
	u, err := s.CreateUpload(t.Context(), repo, digest.SHA256)
	ok(t, err)
	return u.(*upload)
}

func appendAll(t testing.TB, u *upload, data []byte) {
	t.Helper()
	n, err := u.Append(t.Context(), bytes.NewReader(data))
	if err != nil || n != int64(len(data)) {
		t.Fatalf("%d of %d bytes: %v", n, len(data), err)
	}
}

func commit(t testing.TB, u *upload, data []byte) {
	t.Helper()
	ok(t, u.Commit(t.Context(), digest.FromBytes(data)))
	ok(t, u.Close())
	if got := storagetest.Read(t, u.s, u.state.Repository, digest.FromBytes(data)); !bytes.Equal(got, data) {
		t.Error("the blob is another one")
	}
}

// Eight clients that stream one new blob at once write it once.
func TestConcurrentUploadsAreWrittenOnce(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	const size, clients = 20<<20 + 12345, 8
	data := storagetest.Bytes(1, size)
	var begun, written, done sync.WaitGroup
	begun.Add(clients)
	written.Add(clients)
	done.Add(clients)
	check := make(chan struct{})
	for n := range clients {
		go func() {
			defer done.Done()
			u := create(t, s, fmt.Sprint("r", n))
			defer u.Close()
			begun.Done()
			begun.Wait()
			_, err := u.Append(t.Context(), io.LimitReader(&slow{data: data, random: rand.New(rand.NewPCG(uint64(n), 0))}, size))
			if err != nil {
				t.Error(err)
			}
			written.Done()
			<-check
			if err := u.Commit(t.Context(), digest.FromBytes(data)); err != nil {
				t.Error(err)
			}
		}()
	}
	written.Wait()
	if n := onDisk(t, s.root); n < size || n > size+100_000 {
		t.Errorf("%d bytes are on disk for %d", n, size)
	}
	close(check)
	done.Wait()
	if n := onDisk(t, s.root); n < size || n > size+100_000 {
		t.Errorf("%d bytes are on disk for %d after the ends", n, size)
	}
	for n := range clients {
		storagetest.Read(t, s, fmt.Sprint("r", n), digest.FromBytes(data))
	}
	if left, err := os.ReadDir(s.path(uploads)); err != nil || len(left) > 0 || len(s.bodies.open)+len(s.bodies.starts) > 0 {
		t.Errorf("%v is left, and %v: %v", left, s.bodies.open, err)
	}
}

// slow gives its data in pieces of chance.
type slow struct {
	data   []byte
	random *rand.Rand
}

func (r *slow) Read(p []byte) (int, error) {
	n := copy(p, r.data[:min(len(r.data), 1+r.random.IntN(200_000))])
	if r.data = r.data[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Uploads that go apart share what they have in common with those like them.
func TestUploadsGoApart(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	common := storagetest.Bytes(1, 2<<20)
	a, b := append(bytes.Clone(common), storagetest.Bytes(2, 1<<20)...), append(bytes.Clone(common), storagetest.Bytes(3, 1<<20)...)
	list := []*upload{create(t, s, "a1"), create(t, s, "a2"), create(t, s, "b1"), create(t, s, "b2"), create(t, s, "c")}
	datas := [][]byte{a, a, b, b, common}
	for i, u := range list {
		appendAll(t, u, datas[i])
	}
	if list[0].body != list[1].body || list[2].body != list[3].body || list[0].body == list[2].body || list[4].body != list[0].body {
		t.Error("bodies are not shared as they should be")
	}
	if n := onDisk(t, s.root); n > int64(len(a)+len(b))+100_000 {
		t.Errorf("%d bytes are on disk", n)
	}
	ok(t, list[0].Cancel(t.Context())) // who wrote it all
	ok(t, list[0].Close())
	commit(t, list[4], common) // ends within what others have
	commit(t, list[1], a)
	commit(t, list[3], b)
	// What became a blob is not written to any more.
	longer := append(bytes.Clone(b), storagetest.Bytes(4, 200_000)...)
	appendAll(t, list[2], longer[len(b):])
	commit(t, list[2], longer)
	for i, data := range [][]byte{a, b, common} {
		storagetest.Read(t, s, []string{"a2", "b2", "c"}[i], digest.FromBytes(data))
	}
}

// Uploads outlive the process with what they share, and no file is cut that another
// name of is left over.
func TestSharedUploadsAfterRestart(t *testing.T) {
	root := t.TempDir()
	s := openAt(t, root)
	data := storagetest.Bytes(1, 3<<20)
	u1, u2, u3 := create(t, s, "r1"), create(t, s, "r2"), create(t, s, "r3")
	appendAll(t, u1, data[:2<<20])
	appendAll(t, u2, data[:2<<20+100_000])
	appendAll(t, u3, data)
	commit(t, u3, data)
	abandon(t, s)
	// A crash in the middle of a joining or a commit.
	ok(t, os.Link(s.blobPath(digest.FromBytes(data)), s.uploadPath(u1.id, tmpSuffix)))

	s = openAt(t, root)
	reopen := func(repo, id string, size int64) *upload {
		u, err := s.OpenUpload(t.Context(), repo, id)
		ok(t, err)
		same(t, u.Size(), size)
		return u.(*upload)
	}
	u1, u2 = reopen("r1", u1.id, 2<<20), reopen("r2", u2.id, 2<<20+100_000)
	if u1.body != u2.body {
		t.Error("the body is not shared any more")
	}
	appendAll(t, u2, data[u2.Size():])
	other := append(bytes.Clone(data[:2<<20]), storagetest.Bytes(2, 1<<20)...)
	appendAll(t, u1, other[2<<20:])
	commit(t, u1, other)
	commit(t, u2, data)
	storagetest.Read(t, s, "r3", digest.FromBytes(data))
	ok(t, s.Close())
}

// Bytes that a killed process had written and not acknowledged are not the upload's.
func TestUnacknowledgedBytes(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	for i, more := range []int{0, 5, 500_000} {
		data := storagetest.Bytes(uint64(i), 1<<20)
		u := create(t, s, "r")
		appendAll(t, u, data[:700_000])
		ok(t, u.Close())
		f, err := os.OpenFile(u.path(dataSuffix), os.O_WRONLY|os.O_APPEND, 0)
		ok(t, err)
		_, err = f.Write(storagetest.Bytes(99, 10_000))
		ok(t, err)
		ok(t, f.Close())
		again, err := s.OpenUpload(t.Context(), "r", u.id)
		ok(t, err)
		same(t, again.Size(), int64(700_000))
		u = again.(*upload)
		appendAll(t, u, data[700_000:min(len(data), 700_000+more)])
		commit(t, u, data[:u.Size()])
	}
}

// What the loss of power took from an upload is not taken for its bytes.
func TestUploadAfterPowerLoss(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	data := storagetest.Bytes(1, 1<<20)
	for name, harm := range map[string]func(u *upload){
		"nothing": func(*upload) {},
		"zeroes": func(u *upload) {
			f, err := os.OpenFile(u.path(dataSuffix), os.O_WRONLY, 0)
			ok(t, err)
			_, err = f.WriteAt(make([]byte, 4096), 500_000)
			ok(t, err)
			ok(t, f.Close())
		},
		"cut":        func(u *upload) { ok(t, os.Truncate(u.path(dataSuffix), 500_000)) },
		"gone":       func(u *upload) { ok(t, os.Remove(u.path(dataSuffix))) },
		"no state":   func(u *upload) { ok(t, os.Truncate(u.path(stateSuffix), 0)) },
		"half of it": func(u *upload) { ok(t, os.Truncate(u.path(stateSuffix), 100)) },
	} {
		u := create(t, s, "r")
		u.state.Boot = "another"
		appendAll(t, u, data)
		ok(t, u.Close())
		harm(u)
		again, err := s.OpenUpload(t.Context(), "r", u.id)
		if name != "nothing" {
			is(t, err, fault.NotFound)
			continue
		}
		ok(t, err)
		commit(t, again.(*upload), data)
	}
	_, err := s.Collect(t.Context(), 0)
	ok(t, err)
	left, err := os.ReadDir(s.path(uploads))
	ok(t, err)
	same(t, len(left), 0)
}

// Uploads of chance: some share, go apart, are closed and opened, cancelled and
// committed beside each other, and each blob is what was sent.
func TestUploadsOfChance(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			for range 12 {
				chance(t, s, random)
			}
		})
	}
	wg.Wait()
	c, err := s.Collect(t.Context(), 0)
	ok(t, err)
	same(t, c.Uploads, 0)
	if left, err := os.ReadDir(s.path(uploads)); err != nil || len(left) > 0 || len(s.bodies.open)+len(s.bodies.starts) > 0 {
		t.Errorf("%v is left, and %v: %v", left, s.bodies.open, err)
	}
	same(t, onDisk(t, filepath.Join(s.root, "blobs")), int64(0))
}

func chance(t *testing.T, s *Storage, random *rand.Rand) {
	ctx := context.Background()
	var data []byte // one of few, of few parts
	for part := range 4 {
		data = append(data, storagetest.Bytes(uint64(10*part+random.IntN(2)), 100_000+random.IntN(2)*77)...)
	}
	created, err := s.CreateUpload(ctx, "r", digest.SHA256)
	if err != nil {
		t.Error(err)
		return
	}
	u := created
	for u.Size() < int64(len(data)) {
		end := min(int64(len(data)), u.Size()+int64(random.IntN(200_000)))
		if _, err := u.Append(ctx, bytes.NewReader(data[u.Size():end])); err != nil {
			t.Error(err)
			return
		}
		switch random.IntN(8) {
		case 0:
			if err := u.Cancel(ctx); err != nil {
				t.Error(err)
			}
			return
		case 1:
			err := u.Close()
			if err == nil {
				u, err = s.OpenUpload(ctx, "r", u.ID())
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}
	defer u.Close()
	if err := u.Commit(ctx, digest.FromBytes(data)); err != nil {
		t.Error(err)
		return
	}
	storagetest.Read(t, s, "r", digest.FromBytes(data))
}

// An upload that nobody has open holds nothing.
func TestIdleUploadsHoldNothing(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	before := len(descriptors(t))
	for i := range 50 {
		u := create(t, s, "r")
		appendAll(t, u, storagetest.Bytes(uint64(i%10), 200_000))
		ok(t, u.Close())
	}
	if after := len(descriptors(t)); after > before || len(s.bodies.open)+len(s.bodies.starts) > 0 {
		t.Errorf("%d descriptors more, %v", after-before, s.bodies.open)
	}
	s.busy.taken.Range(func(id, _ any) bool {
		t.Errorf("%v is held", id)
		return true
	})
}

func descriptors(t testing.TB) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	return list
}

// A disk that is full is a sentence, and no end of the upload.
func TestDiskFull(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	u := create(t, s, "r")
	data := storagetest.Bytes(1, 1<<20)
	appendAll(t, u, data[:500_000])
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	ok(t, err)
	good := u.body.f
	u.body.f = full
	_, err = u.Append(t.Context(), bytes.NewReader(data[500_000:]))
	is(t, err, fault.Unavailable)
	t.Log(err)
	u.body.f = good
	ok(t, full.Close())
	appendAll(t, u, data[u.Size():])
	commit(t, u, data)
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
		is(t, explain(&os.PathError{Op: "write", Path: "x", Err: errno}), fault.Unavailable)
	}
}

var _ storage.Upload = (*upload)(nil)

// A body that somebody sealed between the opening of its file and the look at it
// is sealed: it is a blob.
func TestSealedWhileOpening(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	data := storagetest.Bytes(1, 1<<20)
	u1, u2 := create(t, s, "r1"), create(t, s, "r2")
	appendAll(t, u1, data)
	appendAll(t, u2, data)
	f, err := os.OpenFile(u2.path(dataSuffix), os.O_RDWR, 0)
	ok(t, err)
	ok(t, u2.Close())
	commit(t, u1, data)
	b, err := s.bodies.adopt(f)
	ok(t, err)
	same(t, b.sealed, true)
	ok(t, s.bodies.release(b))
}

// A process that is not root goes on with an upload whose bytes became a blob by
// another upload: the file can only be read then.
func TestSealedWithoutPrivileges(t *testing.T) {
	root := t.TempDir()
	if os.Geteuid() == 0 {
		ok(t, errors.Join(os.Chown(root, 65534, 65534), os.Chmod(filepath.Dir(root), 0o755)))
		runtime.LockOSThread() // what the thread loses ends with it
		_, err := unix.SetfsuidRetUid(65534)
		ok(t, err)
		t.Cleanup(func() { _, _ = unix.SetfsuidRetUid(0) })
	}
	s := openAt(t, root)
	data := storagetest.Bytes(1, 1<<20)
	for _, rest := range [][]byte{nil, storagetest.Bytes(2, 1000)} {
		u1, u2 := create(t, s, "r1"), create(t, s, "r2")
		appendAll(t, u1, data)
		appendAll(t, u2, data)
		ok(t, u2.Close())
		commit(t, u1, data)
		again, err := s.OpenUpload(t.Context(), "r2", u2.ID())
		ok(t, err)
		appendAll(t, again.(*upload), rest)
		commit(t, again.(*upload), append(bytes.Clone(data), rest...))
		storagetest.Read(t, s, "r2", digest.FromBytes(append(bytes.Clone(data), rest...)))
	}
	ok(t, s.Close())
}

// What a full disk leaves of a transaction is none, and all goes on when there is
// room again.
func TestDiskFullForAll(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	ok(t, unix.Mount("tare-test-full", root, "tmpfs", 0, "size=6m"))
	t.Cleanup(func() { ok(t, unix.Unmount(root, 0)) })
	s := openAt(t, root)
	kept := storagetest.PushImage(t, s, "a", 1, "v")
	fill := func() {
		f, err := os.Create(filepath.Join(root, "filler"))
		ok(t, err)
		defer f.Close()
		for size := 1 << 16; size > 0; {
			if _, err := f.Write(make([]byte, size)); err != nil {
				size /= 2
			}
		}
	}
	failed := 0
	for i := range 30 {
		fill()
		if i%2 == 0 { // room for the bytes, and not for what is said of them
			ok(t, os.Truncate(filepath.Join(root, "filler"), fileSize(t, filepath.Join(root, "filler"))-int64(i)<<13))
		}
		data := storagetest.Bytes(uint64(100+i), 20_000)
		d := digest.FromBytes(data)
		if err := tryUpload(t, s, d, data); err != nil {
			is(t, err, fault.Unavailable)
			failed++
		} else if err := s.PutManifest(t.Context(), "a", imageOf(data), storage.NewTag{Name: fmt.Sprint("t", i)}); err != nil {
			is(t, err, fault.Unavailable)
			failed++
		}
		if err := s.DeleteTag(t.Context(), "a", fmt.Sprint("t", i)); err != nil && !errors.Is(err, fault.NotFound) {
			is(t, err, fault.Unavailable)
		}
		if i%10 == 9 {
			is(t, s.Ready(t.Context()), fault.Unavailable)
		}
		ok(t, os.Remove(filepath.Join(root, "filler")))
		storagetest.Whole(t, s, "a", kept.Descriptor.Digest)
		_, err := s.Collect(t.Context(), 0)
		ok(t, err)
	}
	if failed == 0 {
		t.Error("there was always room")
	}
	fill()
	if err := s.Close(); err == nil {
		t.Error("index.json was written to a full disk")
	}
	ok(t, os.Remove(filepath.Join(root, "filler")))
	s = openAt(t, root)
	storagetest.Whole(t, s, "a", mustTag(t, s, "a", "v"))
	ok(t, s.Close())
	ok(t, unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err := Open(root)
	is(t, err, fault.Unavailable)
}

func fileSize(t testing.TB, path string) int64 {
	st, err := os.Stat(path)
	ok(t, err)
	return st.Size()
}

func tryUpload(t testing.TB, s *Storage, d digest.Digest, data []byte) error {
	u, err := s.CreateUpload(t.Context(), "a", d.Algorithm())
	if err != nil {
		return err
	}
	defer u.Close()
	if _, err := u.Append(t.Context(), bytes.NewReader(data)); err != nil {
		return err
	}
	return u.Commit(t.Context(), d)
}
