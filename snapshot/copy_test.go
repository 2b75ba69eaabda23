package snapshot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
)

// sparse makes a file of 8 MiB with data at its start and in the middle, and
// a hole at its end.
func sparse(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, a := f.WriteAt([]byte("start"), 0)
	_, b := f.WriteAt([]byte("middle"), 4<<20)
	if err := errors.Join(a, b, f.Truncate(8<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Each way to copy data gives the same file, holes and all.
func TestCopyData(t *testing.T) {
	testutil.RequireRoot(t)
	for fs, dir := range map[string]string{"ext4": t.TempDir(), "btrfs": testutil.Btrfs(t), "tmpfs": testutil.Tmpfs(t)} {
		sparse(t, dir+"/from")
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		at := int(d.Fd())
		for way, c := range map[string]*copier{"best": {}, "range": {noClone: true}, "read": {noClone: true, noRange: true}} {
			if err := os.Mkdir(filepath.Join(dir, way), 0o700); err != nil {
				t.Fatal(err)
			}
			into, err := os.Open(filepath.Join(dir, way))
			if err != nil {
				t.Fatal(err)
			}
			defer into.Close()
			if err := c.file(int(into.Fd()), at, "from", 8<<20); err != nil {
				t.Fatalf("%s, %s: %v", fs, way, err)
			}
			if out, err := exec.Command("cmp", dir+"/from", filepath.Join(dir, way, "from")).CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %s", fs, way, out)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, way, "from"), &st); err != nil || st.Blocks*512 > 1<<20 {
				t.Errorf("%s, %s: %d bytes on disk, %v", fs, way, st.Blocks*512, err)
			}
			if fs == "btrfs" && way == "best" && c.noClone {
				t.Error("btrfs shares no data")
			}
		}
	}
}

// A copy is as the original in all that can be told of it.
func TestCopyTree(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	from := dir + "/from"
	old := time.Unix(1_000_000_000, 5)
	put(t, from+"/d/file", "data")
	put(t, from+"/d/other", "data")
	steps := []error{
		os.Link(from+"/d/file", from+"/twice"), os.Symlink("/nowhere", from+"/link"), os.Lchown(from+"/link", 3, 4),
		unix.Setxattr(from+"/d/file", "user.note", []byte("n"), 0), unix.Setxattr(from+"/d", "trusted.note", []byte("t"), 0),
		unix.Lsetxattr(from+"/link", "trusted.note", []byte("l"), 0),
		unix.Setxattr(from+"/d/other", "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		exec.Command("setfacl", "-d", "-m", "u:1000:rw", from+"/d").Run(), exec.Command("setfacl", "-m", "u:1000:rw", from+"/twice").Run(),
		unix.Mknod(from+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mkfifo(from+"/fifo", 0o620), unix.Mknod(from+"/socket", unix.S_IFSOCK|0o600, 0),
		os.Chown(from+"/d/other", 7, 3_000_000_000), os.Chmod(from+"/fifo", 0o602), os.Chmod(from+"/d", os.ModeSticky|os.ModeSetgid|0o750),
		os.Chtimes(from+"/d/file", old, old), os.Chtimes(from+"/d", old, old), os.Chtimes(from, old, old), os.Chmod(from, 0o711),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	// chown took the capability away.
	if err := unix.Setxattr(from+"/d/other", "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
		t.Fatal(err)
	}
	want := listing(t, from)
	if err := copyTree(dir+"/to", from); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir+"/to"); got != want {
		t.Errorf("the copy is\n%s\nof\n%s", got, want)
	}
}

// listing has foreign programs tell of a tree.
func listing(t *testing.T, dir string) string {
	t.Helper()
	out := ""
	for _, command := range []string{
		`find . -printf '%P %M %U %G %n %l %t %y\n' | sort`, "getfacl -R -n .", "getfattr -R -h -d -m - .", "find . -type f | sort | xargs sha256sum",
		`find . -type c -exec stat -c '%n %t:%T' {} +`,
	} {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		said, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, said)
		}
		out += string(said)
	}
	return out
}

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
