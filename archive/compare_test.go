package archive

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/images"
)

func TestMain(m *testing.M) {
	code := m.Run()
	images.Clean()
	os.Exit(code)
}

// described tells all of a tree: per path kind, mode, owner, size, device
// number, time, content, link target, attributes, and the first path of the
// same inode.
func described(t *testing.T, root string) map[string]string {
	t.Helper()
	found, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("mode %o owner %d:%d time %d.%09d links %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			text += fmt.Sprintf(" size %d sum %s", st.Size, sum(t, p))
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " to " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			text += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if _, ok := first[st.Ino]; !ok {
				first[st.Ino] = rel
			}
			text += " inode of " + first[st.Ino]
		}
		found[rel] = text + attributesOf(t, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// inMemory is a directory of the test, in memory where that can be: trees of
// thousands of files take long on a busy disk.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "archive")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := deltree.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func attributesOf(t *testing.T, path string) string {
	t.Helper()
	names := make([]byte, maxAttribute)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		value := make([]byte, maxAttribute)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf(" %s=%x", name, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, "")
}

func same(t *testing.T, ours, theirs string) {
	t.Helper()
	a, b := described(t, ours), described(t, theirs)
	if diff := cmp.Diff(b, a); diff != "" {
		t.Errorf("ours is + in\n%s", diff)
	}
}

// A whole Debian comes out as GNU tar and as umoci extract it.
func TestDebianAsOthers(t *testing.T) {
	testutil.RequireRoot(t)
	data, err := os.ReadFile(images.Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	sameAsTar(t, data)

	f, err := os.Open(images.Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img := images.Make(t, images.Spec{Bases: []io.Reader{f}})
	ours, theirs := inMemory(t), inMemory(t)+"/bundle"
	layer, err := os.Open(images.Layout(img.Dir).Path(img.Layers[0].Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer layer.Close()
	// The image has a layer of the tests' own above, which is of no matter.
	plain, _, err := Decompress(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := extract(t, ours, plain); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("umoci", "unpack", "--image", img.Dir+":"+img.Tag, theirs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(theirs + "/rootfs/layer0"); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(ours, &st); err != nil {
		t.Fatal(err)
	}
	// The removal changed the root's time.
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, theirs+"/rootfs", times, 0); err != nil {
		t.Fatal(err)
	}
	same(t, ours, theirs+"/rootfs")
}
