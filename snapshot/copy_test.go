package snapshot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// A file system without attributes has the layer's name in a file.
func TestTopWithoutAttributes(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s, err := Open(dir+"/store", VFS)
	if err != nil {
		t.Fatal(err)
	}
	base := unpack(t, s, "", map[string]string{"a": "1", "b": "1"})
	top := unpack(t, s, base, map[string]string{".wh.a": "", "b": "2"})
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare("c", top); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = Open(dir+"/store", VFS); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := s.Mount("c")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(m.Dir + "/b"); string(data) != "2" {
		t.Error(string(data), err)
	}
	if _, err := os.Lstat(m.Dir + "/a"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Stat(s.path("active/c", layerFile)); err != nil {
		t.Error(err)
	}
	if s.active["c"] != top {
		t.Errorf("its topmost layer is %s", s.active["c"])
	}
	driver, because, err := Choose(dir + "/new")
	if driver != VFS || because == nil || err != nil {
		t.Errorf("chosen: %s, %v, %v", driver, because, err)
	}
	if _, err := Open(dir+"/new", Overlay); err == nil {
		t.Error("overlay on a file system without attributes")
	}
	if _, err := Open(dir+"/new", Btrfs); err == nil {
		t.Error("btrfs elsewhere")
	}
}

// What a container makes of its own in a subvolume goes with it, read-only or
// not, and below ordinary directories.
func TestNestedSubvolumes(t *testing.T) {
	testutil.RequireRoot(t)
	dir := testutil.Btrfs(t)
	s, err := Open(dir, Btrfs)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := s.Prepare("c", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"create", "/one"}, {"create", "/one/two"}, {"snapshot", "-r", "/one", "/one/frozen"}} {
		command := append([]string{"subvolume"}, args...)
		for i := range command[2:] {
			if command[i+2][0] == '/' {
				command[i+2] = m.Dir + command[i+2]
			}
		}
		if out, err := exec.Command("btrfs", command...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	put(t, m.Dir+"/one/deep/er/x", "1")
	if out, err := exec.Command("btrfs", "subvolume", "create", m.Dir+"/one/deep/er/three").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("btrfs", "property", "set", m.Dir+"/one", "ro", "true").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	deepen(t, m.Dir+"/endless", maxDepth+300)
	limitFiles(t, maxDepth+200)
	if err := s.Remove("c"); err != nil {
		t.Fatal(err)
	}
	empty(t, s, "active", "trash")
	out, err := exec.Command("btrfs", "subvolume", "list", dir).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("left: %s, %v", out, err)
	}
}

// Many directories of one kind need no more descriptors than one.
func TestManyImplicit(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	layers := []string{dir + "/top", dir + "/middle", dir + "/low"}
	for _, layer := range layers {
		for i := range 50 {
			put(t, fmt.Sprintf("%s/a/d%d/x", layer, i), "1")
		}
	}
	m, err := openMerged(layers)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	for i := range 50 {
		if err := takeAfterBelow(m, fmt.Sprintf("a/d%d", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.directory(fmt.Sprintf("a/d%d", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.directory(fmt.Sprintf("a/none%d", i)); err == nil {
			t.Fatal("there")
		}
	}
	if len(m.fds) > 10 {
		t.Errorf("%d descriptors are open", len(m.fds))
	}
}

// Deep directories in many layers leave descriptors for others.
func TestManyDeepLayers(t *testing.T) {
	testutil.RequireRoot(t)
	const levels, layers = 150, 60
	name := strings.TrimSuffix(strings.Repeat("d/", levels), "/")
	root := testutil.Tmpfs(t)
	var dirs []string
	for i := range layers {
		dirs = append(dirs, fmt.Sprintf("%s/%d", root, i))
		if err := os.MkdirAll(dirs[i]+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m, err := openMerged(dirs)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if _, err := m.directory(name[:2*100-1]); err != nil {
		t.Error(err)
	}
	if _, err := m.directory(name); !errors.Is(err, fault.Invalid) {
		t.Errorf("%d descriptors are open, %v", len(m.fds), err)
	}
}
