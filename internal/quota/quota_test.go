package quota

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/treecopy"
)

func TestMain(m *testing.M) { os.Exit(testutil.OwnMounts(m)) }

// The shapes are the kernel's.
func TestSizes(t *testing.T) {
	if n := unsafe.Sizeof(diskQuota{}); n != 112 {
		t.Errorf("struct fs_disk_quota has %d bytes", n)
	}
	if n := unsafe.Sizeof(attributes{}); n != 28 {
		t.Errorf("struct fsxattr has %d bytes", n)
	}
}

// Where the file system can, what is bounded takes no more; where it cannot, Check
// says what is missing.
func TestBounds(t *testing.T) {
	testutil.RequireRoot(t)
	for fs, dir := range map[string]string{"btrfs": testutil.Btrfs(t), "xfs": testutil.XFS(t), "tmpfs": testutil.Tmpfs(t)} {
		at, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		var why Unsupported
		switch err := Check(at); {
		case errors.As(err, &why):
			if fs == "btrfs" || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: %v", fs, err)
			}
			continue
		case err != nil || fs == "tmpfs":
			t.Errorf("%s: %v", fs, err)
			continue
		}
		tree, err := treecopy.Make(at, "tree")
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if err := Set(tree, 8<<20); err != nil {
			t.Fatal(err)
		}
		if n, err := fill(dir+"/tree/file", 32); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) || n > 9 {
			t.Errorf("%s: %d MiB fit, %v", fs, n, err)
		}
		if _, err := fill(dir+"/beside", 32); err != nil {
			t.Errorf("%s: beside it: %v", fs, err)
		}
		if err := Clear(tree); err != nil {
			t.Error(err)
		}
	}
}

// fill writes up to so many MiB.
func fill(path string, n int) (done int, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for ; done < n; done++ {
		if _, err := f.Write(block); err != nil {
			return done, err
		}
		if err := f.Sync(); err != nil {
			return done, err
		}
	}
	return n, nil
}
