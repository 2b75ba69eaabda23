package snapshottest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/snapshot"
)

// Tree lists what is below a directory by path, "." being the directory itself:
// kind, mode, owner, and what else the kernel tells of it but for access times,
// the sizes of directories, and times that are of the test's own.
func Tree(t testing.TB, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	first := map[uint64]string{} // inode -> path
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		found[name], err = describe(path, name, first)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func describe(path, name string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	d := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		d += fmt.Sprintf(" %d %.6x", len(data), sha256.Sum256(data))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		d += " -> " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		d += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if other, ok := first[st.Ino]; ok {
			d += " = " + other
		}
		first[st.Ino] = name
	}
	if mtime := time.Unix(st.Mtim.Unix()); time.Since(mtime) > time.Hour {
		d += " " + mtime.UTC().Format(time.RFC3339Nano)
	}
	attrs, err := xattrs(path)
	return d + attrs, err
}

func xattrs(path string) (string, error) {
	buf, value := make([]byte, 65536), make([]byte, 65536)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ENOTSUP {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	out := ""
	for _, name := range slices.Sorted(strings.SplitSeq(string(buf[:n]), "\x00")) {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		out += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return out, nil
}

// Show lists what a view shows.
func Show(t testing.TB, v *snapshot.View, err error) map[string]string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	tree := Tree(t, fmt.Sprintf("/proc/self/fd/%d/.", v.Root().Fd()))
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	return tree
}

// Compare tells in what the trees differ, as errors of the test.
func Compare(t testing.TB, got, want map[string]string) {
	t.Helper()
	both := maps.Clone(want)
	maps.Copy(both, got)
	for _, name := range slices.Sorted(maps.Keys(both)) {
		if got[name] != want[name] {
			t.Errorf("%s is %q instead of %q", name, got[name], want[name])
		}
	}
}
