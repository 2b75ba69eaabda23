package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/testutil"
	"golang.org/x/sys/unix"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Overlay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func layerTar(t testing.TB, files map[string]string) ([]byte, digest.Digest) {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751, Uid: 5, Gid: 6})
	for name, data := range files {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))})
		w.Write([]byte(data))
	}
	w.Close()
	return buf.Bytes(), digest.FromBytes(buf.Bytes())
}

func unpack(t testing.TB, s *Store, parent digest.Digest, files map[string]string) digest.Digest {
	t.Helper()
	data, d := layerTar(t, files)
	chain, err := s.Unpack(context.Background(), parent, d, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func empty(t *testing.T, s *Store, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		testutil.Eventually(t, 30*time.Second, d+" is empty", func() bool {
			left, err := os.ReadDir(s.path(d))
			return err == nil && len(left) == 0
		})
	}
}

func TestUnpackPrepareMount(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	s := open(t, dir)
	base := unpack(t, s, "", map[string]string{"a": "1", "b": "1"})
	top := unpack(t, s, base, map[string]string{"b": "2", ".wh.a": ""})
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	m, err := s.Prepare("c1", top)
	if err != nil || len(m.Lower) != 3 { // two layers and the base
		t.Fatal(m, err)
	}
	var st unix.Stat_t
	if unix.Stat(m.Upper, &st); st.Mode&0o7777 != 0o751 || st.Uid != 5 || st.Gid != 6 {
		t.Errorf("the root of the container has %o %d:%d", st.Mode, st.Uid, st.Gid)
	}
	checkMerged(t, m)
	if _, err := s.Prepare("c1", top); !errors.Is(err, fault.Conflict) {
		t.Errorf("prepared twice: %v", err)
	}

	// After a restart all is known again, and what a container needs stays.
	s.Close()
	s = open(t, dir)
	again, err := s.Mount("c1")
	if err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
		t.Errorf("%v instead of %v: %v", again, m, err)
	}
	if err := s.Sweep(nil); err != nil || !s.Has(top) || !s.Has(base) {
		t.Errorf("a sweep took a container's layers: %v", err)
	}
	if err := s.Remove("c1"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("c1"); err != nil {
		t.Error(err)
	}
	if err := s.Sweep([]digest.Digest{base}); err != nil || s.Has(top) || !s.Has(base) {
		t.Errorf("has top %v, base %v: %v", s.Has(top), s.Has(base), err)
	}
	empty(t, s, "trash", "active", "new")
}

// checkMerged looks at the overlay through a mount that no name leads to.
func checkMerged(t *testing.T, m Mount) {
	t.Helper()
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skip("no overlay file system: ", err)
	}
	defer unix.Close(fs)
	for _, l := range m.Lower {
		err = errors.Join(err, unix.FsconfigSetString(fs, "lowerdir+", l))
	}
	err = errors.Join(err, unix.FsconfigSetString(fs, "upperdir", m.Upper), unix.FsconfigSetString(fs, "workdir", m.Work), unix.FsconfigCreate(fs))
	if err != nil {
		t.Fatal(err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	path := fmt.Sprintf("/proc/self/fd/%d/", root)
	if data, err := os.ReadFile(path + "b"); string(data) != "2" {
		t.Errorf("b is %q, %v", data, err)
	}
	if _, err := os.Lstat(path + "a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a is there: %v", err)
	}
}

func TestUnpackRefusesAWrongDiffID(t *testing.T) {
	testutil.RequireRoot(t)
	s := open(t, t.TempDir())
	data, _ := layerTar(t, map[string]string{"a": "1"})
	_, err := s.Unpack(context.Background(), "", digest.FromString("other"), bytes.NewReader(data))
	if !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := s.Unpack(context.Background(), digest.FromString("no parent"), digest.FromString("x"), bytes.NewReader(data)); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	empty(t, s, "trash", "new")
	if left, _ := os.ReadDir(s.path("layers")); len(left) != 1 {
		t.Errorf("layers/ holds %v", left)
	}
}

func TestOpenAfterCrash(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	s := open(t, dir)
	synced := unpack(t, s, "", map[string]string{"a": "1"})
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	unsynced := unpack(t, s, synced, map[string]string{"b": "1"})
	above := unpack(t, s, unsynced, map[string]string{"c": "1"})
	os.WriteFile(s.layerPath(above)+"/synced", nil, 0o644)
	if _, err := s.Begin(""); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(s.path("spare/half/upper"), 0o755)
	os.MkdirAll(s.path("trash/old/deep/tree"), 0o755)
	s.Close()
	s = open(t, dir)
	if !s.Has(synced) || s.Has(unsynced) || s.Has(above) {
		t.Errorf("has the synced layer %v, the unsynced %v, the one above it %v", s.Has(synced), s.Has(unsynced), s.Has(above))
	}
	empty(t, s, "trash", "active", "new")
}

// A layer may hide all that is below it.
func TestOpaqueRoot(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	s := open(t, dir)
	base := unpack(t, s, "", map[string]string{"a": "1", "b": "1"})
	top := unpack(t, s, base, map[string]string{".wh..wh..opq": "", "b": "2"})
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	m, err := s.Prepare("c", top)
	if err != nil {
		t.Fatal(err)
	}
	checkMerged(t, m)
	s.Close()
	s = open(t, dir)
	if m, err = s.Mount("c"); err != nil {
		t.Fatal(err)
	}
	checkMerged(t, m)
}

// What a container wrote stays when it is not known any more what it lay on,
// and so do all layers.
func TestActiveWithoutAttribute(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	s := open(t, dir)
	chain := unpack(t, s, "", map[string]string{"a": "1"})
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	m, err := s.Prepare("c", chain)
	if err != nil {
		t.Fatal(err)
	}
	put(t, m.Upper+"/data", "precious")
	if err := unix.Removexattr(s.path("active/c"), layerAttribute); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir)
	if err := s.Sweep(nil); err != nil || !s.Has(chain) {
		t.Errorf("its layer is there: %v, %v", s.Has(chain), err)
	}
	if _, err := s.Mount("c"); err == nil || errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := s.Prepare("c", chain); !errors.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if data, err := os.ReadFile(m.Upper + "/data"); string(data) != "precious" {
		t.Error(string(data), err)
	}
	if got := s.Active(); len(got) != 1 || got[0] != "c" {
		t.Error(got)
	}
	if err := s.Remove("c"); err != nil {
		t.Error(err)
	}
	empty(t, s, "active", "trash")
}

// A pair that was on its way to a container when the daemon died has that
// container's owner and mode.
func TestSpareOfAnotherImage(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	s := open(t, dir)
	testutil.Eventually(t, 5*time.Second, "pairs are ready", func() bool {
		left, err := os.ReadDir(s.path("spare"))
		return err == nil && len(left) == maxSpares
	})
	s.Close()
	pairs, _ := os.ReadDir(s.path("spare"))
	for _, p := range pairs {
		if err := os.Chown(s.path("spare", p.Name(), "upper"), 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	m, err := s.Prepare("c", "")
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(m.Upper, &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the root of the container belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
}

func TestImageWithoutLayers(t *testing.T) {
	testutil.RequireRoot(t)
	s := open(t, t.TempDir())
	m, err := s.Prepare("c", "")
	if err != nil || len(m.Lower) != 1 || !filepath.IsAbs(m.Lower[0]) {
		t.Error(m, err)
	}
	for _, id := range []string{"", "..", "a/b"} {
		if _, err := s.Prepare(id, ""); !errors.Is(err, fault.Invalid) {
			t.Errorf("the ID %q: %v", id, err)
		}
	}
	if _, err := s.Prepare("d", digest.FromString("gone")); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func BenchmarkPrepare(b *testing.B) {
	testutil.RequireRoot(b)
	s := open(b, b.TempDir())
	chain := unpack(b, s, "", map[string]string{"a": "1"})
	i := 0
	for b.Loop() {
		// Containers come one by one: the next pair is there by then.
		b.StopTimer()
		testutil.Eventually(b, 5*time.Second, "a pair is ready", func() bool {
			s.driver.(*overlay).spares.mu.Lock()
			defer s.driver.(*overlay).spares.mu.Unlock()
			return len(s.driver.(*overlay).spares.ready) > 0
		})
		b.StartTimer()
		i++
		if _, err := s.Prepare(fmt.Sprint("c", i), chain); err != nil {
			b.Fatal(err)
		}
	}
}

// A tree that cannot get its place is not left behind.
func TestPrepareThatFails(t *testing.T) {
	testutil.RequireRoot(t)
	s, err := Open(t.TempDir(), VFS)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s.path("active", "c", "taken"), "")
	if _, err := s.Prepare("c", ""); err == nil {
		t.Error("a directory with something in it was replaced")
	}
	empty(t, s, "new", "trash")
}

// deepen makes directories one in the other, deeper than any path is long, with
// a file of a byte in the lowest.
func deepen(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, name := unix.AT_FDCWD, dir
	for range levels {
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd) // not AT_FDCWD, which is no descriptor
		fd, name = next, "d"
	}
	defer unix.Close(fd)
	file, err := unix.Openat(fd, "file", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(file, []byte("x")); err != nil {
		t.Fatal(err)
	}
	unix.Close(file)
}

// limitFiles lowers the number of files that may be open for the test.
func limitFiles(t *testing.T, n uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}

// What a container made deeper than files may be open goes all the same.
func TestDeepTrash(t *testing.T) {
	testutil.RequireRoot(t)
	limitFiles(t, 256)
	s := open(t, t.TempDir())
	deep := s.path("trash", "deep")
	deepen(t, deep, 600)
	s.trash.add(deep)
	empty(t, s, "trash")
}

// A container that makes directories without end does not use up what the
// daemon may open, and its other files are counted.
func TestUsageOfDeepTrees(t *testing.T) {
	testutil.RequireRoot(t)
	limitFiles(t, maxDepth+200)
	s := open(t, t.TempDir())
	m, err := s.Prepare("c", "")
	if err != nil {
		t.Fatal(err)
	}
	deepen(t, m.Upper+"/deep", maxDepth+300)
	put(t, m.Upper+"/file", "12345")
	if changed, all, err := s.Usage(t.Context(), "c"); changed != 5 || all != 5 || err != nil {
		t.Errorf("%d and %d bytes, %v", changed, all, err)
	}
	if err := s.Remove("c"); err != nil {
		t.Fatal(err)
	}
	empty(t, s, "trash")
}

// An image's trees without end are refused where trees are copied and merged.
func TestCopyOfDeepTrees(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	for _, d := range []string{"/from", "/to", "/to/" + stageName} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	deepen(t, dir+"/from/d", 3000)
	if err := copyTree(dir+"/copy", dir+"/from"); !errors.Is(err, fault.Invalid) {
		t.Errorf("copied: %v", err)
	}
	deepen(t, dir+"/to/"+stageName+"/d", 3000)
	root, err := openDir(unix.AT_FDCWD, dir+"/to")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := mergeStage(t.Context(), root, archive.Stats{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("merged: %v", err)
	}
	if err := deltree.Remove(dir); err != nil { // which TempDir cannot
		t.Error(err)
	}
}
