package deltree

import (
	"errors"
	"os"
	"strconv"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"golang.org/x/sys/unix"
)

// chain makes directories one in the other, deeper than any path is long.
func chain(t *testing.T, dir string, depth int) {
	t.Helper()
	fd, err := unix.Open(dir, dirFlags, 0)
	for range depth {
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkdirat(fd, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		var next int
		next, err = unix.Openat(fd, "d", dirFlags, 0)
		unix.Close(fd)
		fd = next
	}
	if err := unix.Mknodat(fd, "file", unix.S_IFREG|0o600, 0); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

// limited lowers the number of files that the process may open for the test.
func limited(t *testing.T, files uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}

func TestDeepTree(t *testing.T) {
	base, err := os.MkdirTemp("", "deltree") // whose own clean-up would fail in such a tree
	if err != nil {
		t.Fatal(err)
	}
	os.Mkdir(base+"/tree", 0o755)
	chain(t, base+"/tree", 2000)
	os.MkdirAll(base+"/tree/deep1/deep2", 0o755) // the names that are used on the way
	os.Symlink(base, base+"/tree/link")
	limited(t, 200)
	if err := Remove(base + "/tree"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(base); err != nil || len(entries) != 0 {
		t.Errorf("%v is left, %v", entries, err)
	}
	if err := Remove(base + "/tree"); err != nil {
		t.Error(err)
	}
	if err := Remove(base); err != nil {
		t.Error(err)
	}
}

// What chattr(1) protects goes too.
func TestFlags(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	var set []string
	for _, dir := range []string{"immutable", "growing"} {
		must(t, os.MkdirAll(base+"/tree/"+dir+"/empty", 0o755))
		must(t, os.WriteFile(base+"/tree/"+dir+"/file", nil, 0o644))
		must(t, os.Symlink("file", base+"/tree/"+dir+"/link"))
		set = append(set, base+"/tree/"+dir+"/file", base+"/tree/"+dir+"/empty", base+"/tree/"+dir, base+"/tree")
	}
	for i, path := range set {
		flag := flagImmutable
		if i >= len(set)/2 {
			flag = flagAppend
		}
		f, err := os.Open(path)
		must(t, err)
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag)
		f.Close()
		if err != nil {
			t.Skipf("no flags can be set here: %v", err)
		}
	}
	if err := os.RemoveAll(base + "/tree"); err == nil {
		t.Fatal("nothing was protected")
	}
	must(t, Remove(base+"/tree"))
	if _, err := os.Lstat(base + "/tree"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWideTreeAndFiles(t *testing.T) {
	base := t.TempDir()
	for i := range 4 {
		os.MkdirAll(base+"/tree/"+strconv.Itoa(i), 0o755)
		for j := range 20 {
			os.WriteFile(base+"/tree/"+strconv.Itoa(i)+"/"+strconv.Itoa(j), nil, 0o400)
		}
	}
	for i := range 1100 {
		os.WriteFile(base+"/tree/f"+strconv.Itoa(i), nil, 0o400)
	}
	os.WriteFile(base+"/kept", []byte("x"), 0o600)
	os.Symlink("kept", base+"/link")
	for _, name := range []string{"tree", "link", "missing", "missing/too"} {
		if err := Remove(base + "/" + name); err != nil {
			t.Error(err)
		}
	}
	if entries, _ := os.ReadDir(base); len(entries) != 1 || entries[0].Name() != "kept" {
		t.Errorf("left is %v", entries)
	}
}

// One thing that cannot go does not keep the others, and is told.
func TestMountStays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	base := t.TempDir()
	os.MkdirAll(base+"/tree/a/mount", 0o755)
	os.MkdirAll(base+"/tree/b/c", 0o755)
	if err := unix.Mount("none", base+"/tree/a/mount", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	err := Remove(base + "/tree")
	if uerr := unix.Unmount(base+"/tree/a/mount", 0); uerr != nil {
		t.Fatal(uerr)
	}
	if !errors.Is(err, unix.EBUSY) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(base + "/tree"); len(entries) != 1 || entries[0].Name() != "a" {
		t.Errorf("left is %v", entries)
	}
}
