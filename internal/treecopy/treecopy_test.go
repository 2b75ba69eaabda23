package treecopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

func TestMain(m *testing.M) { os.Exit(testutil.OwnMounts(m)) }

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
	for fs, dir := range map[string]string{"here": t.TempDir(), "btrfs": testutil.Btrfs(t), "xfs": testutil.XFS(t), "tmpfs": testutil.Tmpfs(t)} {
		put(t, dir+"/from/small", "data")
		sparse(t, dir+"/from/sparse")
		without := func(clone, ranged bool) *ways {
			w := &ways{}
			w.noClone.Store(clone)
			w.noRange.Store(ranged)
			return w
		}
		for way, w := range map[string]*ways{"best": {}, "range": without(true, false), "read": without(true, true)} {
			to := filepath.Join(dir, way)
			if err := os.Mkdir(to, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := copyBy(t.Context(), open(t, to), open(t, dir+"/from"), 2, w); err != nil {
				t.Fatalf("%s, %s: %v", fs, way, err)
			}
			if out, err := exec.Command("diff", "-r", dir+"/from", to).CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %s", fs, way, out)
			}
			var st unix.Stat_t
			if err := unix.Stat(to+"/sparse", &st); err != nil || st.Blocks*512 > 1<<20 {
				t.Errorf("%s, %s: %d bytes on disk, %v", fs, way, st.Blocks*512, err)
			}
			if (fs == "btrfs" || fs == "xfs") && way == "best" && w.noClone.Load() {
				t.Errorf("%s shares no data", fs)
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
	if err := clone(t, dir, "to", from); err != nil {
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

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func clone(t *testing.T, dir, name, from string) error {
	t.Helper()
	return Clone(t.Context(), open(t, dir), name, open(t, from), nil)
}

// Wide and deep trees, and names of one file in many directories, come whole
// from workers that share them.
func TestCopyMany(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	from := dir + "/from"
	put(t, from+"/first", "shared")
	old := time.Unix(1_000_000_000, 7)
	for i := range 40 {
		sub := fmt.Sprintf("%s/%d/a/b", from, i%20)
		for j := range 40 {
			put(t, fmt.Sprintf("%s/%d-%d", sub, i, j), "x")
		}
		if err := os.Link(from+"/first", fmt.Sprintf("%s/link%d", sub, i)); err != nil {
			t.Fatal(err)
		}
		put(t, fmt.Sprintf("%s/wide%d", from, i), "w")
	}
	for i := range 20 {
		if err := errors.Join(os.Chtimes(fmt.Sprintf("%s/%d/a/b", from, i), old, old), os.Chtimes(fmt.Sprintf("%s/%d/a", from, i), old, old)); err != nil {
			t.Fatal(err)
		}
	}
	want := listing(t, from)
	for i := range 3 {
		name := fmt.Sprint("to", i)
		if err := clone(t, dir, name, from); err != nil {
			t.Fatal(err)
		}
		if got := listing(t, filepath.Join(dir, name)); got != want {
			t.Errorf("the copy is\n%s\nof\n%s", got, want)
		}
	}
}

// A copy inherits no access list from the directory that it is made in, and no
// group.
func TestCopyInheritsNothing(t *testing.T) {
	testutil.RequireRoot(t)
	dir, source := t.TempDir(), t.TempDir()
	put(t, source+"/d/file", "x")
	want := listing(t, source)
	if err := errors.Join(exec.Command("setfacl", "-d", "-m", "u:1000:rwx", dir).Run(), os.Chown(dir, 0, 77), os.Chmod(dir, os.ModeSetgid|0o755)); err != nil {
		t.Fatal(err)
	}
	if err := clone(t, dir, "to", source); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dir+"/to"); got != want {
		t.Errorf("the copy is\n%s\nof\n%s", got, want)
	}
}

// What fails leaves nothing, and nothing of a tree is outside of it: a name that
// turns into a link leads nowhere, what vanishes is passed over.
func TestCopyOfWhatChanges(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	from := dir + "/from"
	put(t, dir+"/outside/secret", "secret")
	for i := range 300 {
		put(t, fmt.Sprintf("%s/d%d/secret", from, i), "mine")
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for i := 0; ; i = (i + 1) % 300 {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprintf("%s/d%d", from, i)
			_ = os.Rename(name, name+".away")
			_ = os.Symlink(dir+"/outside", name)
			_ = os.Remove(name)
			_ = os.Rename(name+".away", name)
		}
	})
	for i := range 10 {
		name := fmt.Sprint("to", i)
		if err := clone(t, dir, name, from); err != nil {
			t.Error(err)
		}
		if out, _ := exec.Command("grep", "-rl", "^secret", filepath.Join(dir, name)).CombinedOutput(); len(out) > 0 {
			t.Errorf("copied from outside: %s", out)
		}
	}
	close(stop)
	busy.Wait()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Clone(cancelled, open(t, dir), "no", open(t, from), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Lstat(dir + "/no"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// On btrfs a clone is a subvolume, by a snapshot where that has all there is.
func TestCloneSubvolume(t *testing.T) {
	testutil.RequireRoot(t)
	dir := testutil.Btrfs(t)
	at := open(t, dir)
	from, err := Make(at, "from")
	if err != nil {
		t.Fatal(err)
	}
	from.Close()
	put(t, dir+"/from/file", "data")
	want := listing(t, dir+"/from")
	if err := clone(t, dir, "snapshot", dir+"/from"); err != nil {
		t.Fatal(err)
	}
	inode := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	if got := listing(t, dir+"/snapshot"); got != want || inode(dir+"/snapshot/file") != inode(dir+"/from/file") {
		t.Errorf("the snapshot is\n%s", got)
	}
	if out, err := exec.Command("btrfs", "subvolume", "create", dir+"/from/nested").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	put(t, dir+"/from/nested/deep", "data")
	if err := clone(t, dir, "copy", dir+"/from"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dir + "/copy/nested/deep"); string(got) != "data" || inode(dir+"/copy") != 256 {
		t.Error(string(got), err)
	}
	elsewhere := t.TempDir()
	if err := clone(t, elsewhere, "to", dir+"/from"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"from", "snapshot", "copy", "none"} {
		if err := Remove(at, name); err != nil {
			t.Error(err)
		}
	}
	if out, err := exec.Command("btrfs", "subvolume", "list", dir).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("left: %s, %v", out, err)
	}
}

// A link that somebody puts in the place of what was just made is not followed.
func TestAttributesFollowNoLink(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	put(t, dir+"/theirs", "")
	if err := errors.Join(os.Chmod(dir+"/theirs", 0o600), unix.Mkfifo(dir+"/fifo", 0o666), os.Symlink("theirs", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	place, err := unix.Open(dir+"/fifo", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		t.Fatal(err)
	}
	st.Mode |= 0o7777
	if err := (&worker{}).dressAt(int(open(t, dir).Fd()), "link", place, &st); err == nil {
		t.Error("the link has a mode")
	}
	if st, err := os.Stat(dir + "/theirs"); err != nil || st.Mode() != 0o600 {
		t.Error(st.Mode(), err)
	}
}
