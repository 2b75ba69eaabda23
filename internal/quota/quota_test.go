package quota

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// TestProjects: of several directories with one bound, what is moved between them
// counts once, and the number is free again in the end.
func TestProjects(t *testing.T) {
	for _, fs := range testutil.ProjectQuotas {
		t.Run(fs, func(t *testing.T) {
			root := t.TempDir()
			release := testutil.MountProjectQuotas(t, fs, root)
			t.Cleanup(func() {
				if err := release(); err != nil {
					t.Error(err)
				}
			})
			var dirs []*os.File
			for _, name := range []string{"one", "other"} {
				if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
					t.Fatal(err)
				}
				d, err := os.Open(filepath.Join(root, name))
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				dirs = append(dirs, d)
			}
			if err := Check(dirs[0]); err != nil {
				t.Fatal(err)
			}
			if err := SetAll(8<<20, dirs...); err != nil {
				t.Fatal(err)
			}
			inside := filepath.Join(root, "one", "inside") // has the project of all around it
			if err := os.Mkdir(inside, 0o755); err != nil {
				t.Fatal(err)
			}
			// ext4 lets pass who has CAP_SYS_RESOURCE.
			fill := func(path string) error {
				out, err := exec.Command("setpriv", "--bounding-set", "-sys_resource", "dd", "if=/dev/zero", "of="+path, "bs=1M", "count=5", "conv=fsync").CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			}
			if err := fill(root + "/one/file"); err != nil {
				t.Error(err)
			}
			if err := os.Rename(root+"/one/file", root+"/other/file"); err != nil {
				t.Error(err)
			}
			if err := fill(root + "/one/file"); err == nil || !strings.Contains(err.Error(), "quota exceeded") && !strings.Contains(err.Error(), "No space left") {
				t.Errorf("10 MiB fit into 8: %v", err)
			}
			if err := fill(root + "/beside"); err != nil {
				t.Errorf("without a bound: %v", err)
			}
			var attr attributes
			if err := ioctl(int(dirs[1].Fd()), getAttributes, &attr); err != nil || attr.project == 0 {
				t.Fatalf("the project %d, %v", attr.project, err)
			}
			var q diskQuota
			d, err := os.Open(inside)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := Clear(d); err != nil {
				t.Error(err)
			}
			if err := quotactl(int(d.Fd()), getQuota, attr.project, unsafe.Pointer(&q)); err != nil || q.hardBlocks == 0 {
				t.Errorf("the bound of all around went: %+v, %v", q, err)
			}
			if err := Clear(dirs[0]); err != nil {
				t.Error(err)
			}
			if err := quotactl(int(dirs[0].Fd()), getQuota, attr.project, unsafe.Pointer(&q)); err != nil || q.hardBlocks != 0 || q.softBlocks != 0 {
				t.Errorf("a bound is left: %+v, %v", q, err)
			}
		})
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
