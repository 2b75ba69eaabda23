package treecopy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/treecopy"
)

func copyTree(ctx context.Context, to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Open(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	return treecopy.Copy(ctx, dst, src)
}

// describe tells all about a tree; files of several names by the first of them.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	out, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if _, seen := first[st.Ino]; !seen {
			first[st.Ino] = name
		}
		links := st.Nlink
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			links = 0
		}
		text := fmt.Sprintf("mode %o owner %d:%d dev %x same %s links %d mtime %d.%d", st.Mode, st.Uid, st.Gid, st.Rdev, first[st.Ino], links, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" size %d text %.40q", len(data), data)
		case unix.S_IFLNK:
			target, _ := os.Readlink(path)
			text += " to " + target
		}
		names := make([]byte, 4096)
		n, _ := unix.Llistxattr(path, names)
		for attr := range strings.SplitSeq(strings.Trim(string(names[:max(n, 0)]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			if n, err := unix.Lgetxattr(path, attr, value); err == nil {
				text += fmt.Sprintf(" %s=%x", attr, value[:n])
			}
		}
		out[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCopyIsTheSame(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	from, to := filepath.Join(root, "from"), filepath.Join(root, "to")
	must(t, os.MkdirAll(filepath.Join(from, "a/b/c"), 0o755))
	must(t, os.Mkdir(to, 0o2755)) // what is made in it would inherit the group
	must(t, os.Chown(to, 0, 77))
	must(t, os.Chmod(to, 0o2755|os.ModeSetgid))
	for i := range 3 * 64 { // more than a piece of work
		name := filepath.Join(from, "a", fmt.Sprintf("f%d", i))
		must(t, os.WriteFile(name, []byte(strings.Repeat("x", i*777)), 0o644))
		must(t, os.Link(name, filepath.Join(from, "a/b", fmt.Sprintf("l%d", i))))
	}
	for mode := range 8 {
		must(t, os.WriteFile(filepath.Join(from, fmt.Sprint("mode", mode)), nil, 0o600))
		must(t, unix.Chmod(filepath.Join(from, fmt.Sprint("mode", mode)), uint32(mode)<<9|0o006))
	}
	must(t, os.Chown(filepath.Join(from, "a/f1"), 1000, 1001))
	must(t, unix.Chmod(filepath.Join(from, "a/f1"), 0o6755))
	must(t, unix.Setxattr(filepath.Join(from, "a/f2"), "user.x", []byte("y"), 0))
	must(t, unix.Setxattr(filepath.Join(from, "a"), "trusted.x", []byte("z"), 0))
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(filepath.Join(from, "a/f3"), "security.capability", capability, 0))
	must(t, os.Symlink("/etc/passwd", filepath.Join(from, "out")))
	must(t, os.Symlink("nowhere", filepath.Join(from, "dangling")))
	must(t, os.Lchown(filepath.Join(from, "dangling"), 5, 6))
	must(t, unix.Mknod(filepath.Join(from, "null"), unix.S_IFCHR|0o666, 1<<8|3))
	must(t, unix.Mkfifo(filepath.Join(from, "pipe"), 0o622))
	must(t, unix.Mknod(filepath.Join(from, "sock"), unix.S_IFSOCK|0o700, 0))
	sparse, err := os.Create(filepath.Join(from, "sparse"))
	must(t, err)
	must(t, sparse.Truncate(64<<20))
	_, err = sparse.WriteAt([]byte("in the middle"), 32<<20)
	must(t, err)
	must(t, sparse.Close())
	old := unix.Timespec{Sec: 1e9, Nsec: 123456789}
	for _, name := range []string{"a/f5", "dangling", "pipe", "a/b", "a", "."} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(from, name), []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}
	must(t, unix.Chmod(filepath.Join(from, "a/b"), 0o1777))
	must(t, unix.Chmod(from, 0o751))

	must(t, copyTree(t.Context(), to, from))
	if diff := cmp.Diff(describe(t, from), describe(t, to)); diff != "" {
		t.Error(diff)
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(to, "sparse"), &st))
	if st.Blocks > 1024 {
		t.Errorf("the holes of a sparse file take %d blocks", st.Blocks)
	}
}

func TestCopyEnds(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(from, "a/b"), 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyTree(ctx, to, from); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(from, "taken"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(to, "taken"), []byte("mine"), 0o644))
	if err := copyTree(t.Context(), to, from); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(to, "taken")); string(text) != "mine" {
		t.Errorf("it was overwritten: %q", text)
	}
}

// Deeper than there may be descriptors is refused in a sentence, not by leaving
// out something.
func TestDepth(t *testing.T) {
	testutil.RequireRoot(t)
	from, to := t.TempDir(), t.TempDir()
	dir, err := unix.Open(from, unix.O_PATH, 0)
	must(t, err)
	for range 2100 {
		must(t, unix.Mkdirat(dir, "d", 0o755))
		next, err := unix.Openat(dir, "d", unix.O_PATH, 0)
		must(t, err)
		unix.Close(dir)
		dir = next
	}
	unix.Close(dir)
	if err := copyTree(t.Context(), to, from); err == nil || !strings.Contains(err.Error(), "a path of more than 4096 bytes") && !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v", err)
	}
}
