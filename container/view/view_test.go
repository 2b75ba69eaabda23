package view

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/snapshot"
)

func TestAsk(t *testing.T) {
	for given, want := range map[string]Path{
		"/a/b":    {"/a/b", "/a/b", false, "b"},
		"a/../b/": {"a/../b/", "/b", true, "b"},
		"/a/.":    {"/a/.", "/a", true, "."},
		"":        {"", "/", true, "."},
		"/":       {"/", "/", true, "/"},
		"../../x": {"../../x", "/x", false, "x"},
	} {
		if got := Ask(given); got != want {
			t.Errorf("%q: %+v instead of %+v", given, got, want)
		}
	}
}

// tree makes a directory with links that lead out of it, were it not a root.
func tree(t *testing.T) (dir string, v *View) {
	t.Helper()
	dir = t.TempDir()
	err := errors.Join(os.MkdirAll(dir+"/d/sub", 0o755), os.Mkdir(dir+"/etc", 0o755), os.WriteFile(dir+"/d/f", []byte("abc"), 0o640),
		os.WriteFile(dir+"/etc/passwd", []byte("ann:x:1000:50:::\n"), 0o644), os.WriteFile(dir+"/etc/group", []byte("disk:x:6:\n"), 0o644),
		os.Symlink("/d", dir+"/abs"), os.Symlink("../../../../d/f", dir+"/up"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	v = Of(root)
	t.Cleanup(v.Close)
	return dir, v
}

func TestPlaces(t *testing.T) {
	_, v := tree(t)
	for given, want := range map[string]struct {
		name, link string
		mode       os.FileMode
	}{
		"/d/f": {"f", "", 0o640}, "/abs": {"abs", "/d", os.ModeSymlink | 0o777}, "/abs/": {"abs", "", os.ModeDir | 0o755}, "/abs/f": {"f", "", 0o640},
		"/up": {"up", "/d/f", os.ModeSymlink | 0o777}, "/d/.": {".", "", os.ModeDir | 0o755},
	} {
		a := Ask(given)
		place, st, err := v.Place(a)
		if err != nil {
			t.Errorf("%s: %v", given, err)
			continue
		}
		place.Close()
		got, err := v.Stat(a, &st)
		if err != nil || got.Name != want.name || got.LinkTarget != want.link || got.Mode != want.mode {
			t.Errorf("%s: %+v, %v; want %+v", given, got, err, want)
		}
	}
	for given, want := range map[string]error{"/d/f/": unix.ENOTDIR, "/none": fs.ErrNotExist, "/up/": unix.ENOTDIR} {
		if _, _, err := v.Place(Ask(given)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", given, err, want)
		}
	}
	if err := v.Writable(Ask("/abs")); err != nil {
		t.Error(err)
	}
	if err := v.Writable(Ask("/d/f")); !errors.Is(err, fault.Invalid) {
		t.Errorf("a file to unpack in: %v", err)
	}
	if who, err := v.Owner("ann:disk"); err != nil || who.UID != 1000 || who.GID != 6 {
		t.Errorf("%+v, %v", who, err)
	}
}

func TestUnpack(t *testing.T) {
	dir, v := tree(t)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "new", Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid()}), w.Close()); err != nil {
		t.Fatal(err)
	}
	o := archive.Options{Whiteouts: archive.NoWhiteouts, Dir: Ask("/abs/sub").Dir()}
	if err := v.Unpack(t.Context(), &buf, o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/d/sub/new"); err != nil {
		t.Error(err)
	}
	if err := v.Unpack(t.Context(), strings.NewReader(""), o); err != nil {
		t.Errorf("nothing at all: %v", err)
	}
}

// A root that is mounted to be read is as it was after; one to be written to gets the
// places that its mounts need. Nobody else sees either.
func TestMount(t *testing.T) {
	testutil.RequireRoot(t)
	lower, _ := tree(t)
	top := t.TempDir()
	m := snapshot.Mount{Lower: []string{lower}, Upper: filepath.Join(top, "upper"), Work: filepath.Join(top, "work")}
	volume := t.TempDir()
	if err := errors.Join(os.Mkdir(m.Upper, 0o755), os.Mkdir(m.Work, 0o755), os.WriteFile(volume+"/here", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	bind := func(target string) Bind {
		fd, err := unix.OpenTree(unix.AT_FDCWD, volume, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		tree := os.NewFile(uintptr(fd), volume)
		t.Cleanup(func() { tree.Close() })
		return Bind{target, tree}
	}
	if _, err := Mount(m, []Bind{bind("/v/deep")}, Options{}); !errors.Is(err, ErrNoPlace) {
		t.Errorf("a place that is missing: %v", err)
	}
	read, err := Mount(m, []Bind{bind("/abs/sub")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := archive.OpenFile(read.Root(), "/d/sub/here"); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	read.Close()
	if left, err := os.ReadDir(m.Upper); err != nil || len(left) > 0 {
		t.Errorf("reading left %v, %v", left, err)
	}

	written, err := Mount(m, []Bind{bind("/v/deep")}, Options{Write: true, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer written.Close()
	if err := written.Writable(Ask("/v/deep")); err != nil {
		t.Error(err)
	}
	if err := written.Writable(Ask("/d")); err == nil || err.Error() != "container rootfs is marked read-only" {
		t.Error(err)
	}
	if st, err := os.Stat(m.Upper + "/v/deep"); err != nil || !st.IsDir() {
		t.Errorf("the place was not made: %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), lower) {
		t.Errorf("this process sees the mounts: %v", err)
	}
}
