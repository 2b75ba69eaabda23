package overlayfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// Both ways of mounting give the same root, with the topmost layer first, and
// with names that mean something in an option string.
func TestMount(t *testing.T) {
	testutil.RequireRoot(t)
	for name, mount := range map[string]func(Overlay, int) (int, error){"layers": byLayers, "options": byOptions} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			o := Overlay{Upper: filepath.Join(root, "up,per"), Work: filepath.Join(root, "work"), Volatile: true}
			dirs := []string{o.Upper, o.Work}
			for i := range 20 {
				o.Lower = append(o.Lower, filepath.Join(root, "layers", fmt.Sprintf("a:b,c\\%d", i)))
			}
			for _, d := range append(dirs, o.Lower...) {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for i, d := range o.Lower {
				os.WriteFile(filepath.Join(d, "which"), fmt.Append(nil, i), 0o644)
				os.WriteFile(filepath.Join(d, fmt.Sprint("file", i)), nil, 0o644)
			}
			at := look(t, o, 0, mount)
			if err := os.WriteFile(at+"new", nil, 0o644); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(o.Upper, "new")); err != nil {
				t.Error(err)
			}
			// The same layers and what is written on them, at the same time.
			at = look(t, Overlay{Lower: append([]string{o.Upper}, o.Lower...), Shared: true}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, mount)
			if _, err := os.Stat(at + "new"); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(at+"newer", nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("a read-only mount was written to: %v", err)
			}
		})
	}
}

// The features that make an upper directory refer to the layers below are off,
// whatever this kernel's defaults: it shows those options that differ from them.
func TestFeatures(t *testing.T) {
	testutil.RequireRoot(t)
	for name, mount := range map[string]func(Overlay, int) (int, error){"layers": byLayers, "options": byOptions} {
		root := t.TempDir()
		o := Overlay{Lower: []string{root + "/lower"}, Upper: root + "/upper", Work: root + "/work"}
		for _, d := range []string{o.Lower[0] + "/dir", o.Upper, o.Work} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(o.Lower[0]+"/file", []byte("data"), 0o644); err != nil {
			t.Fatal(err)
		}
		fd, err := mount(o, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if !slices.Contains(o.features(), "index=off") { // which no kernel here has on
			t.Error("an upper directory whose last mount is ending may be refused")
		}
		at := fmt.Sprintf("/proc/self/fd/%d/", fd)
		if err := os.Rename(at+"dir", at+"moved"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("%s: a directory is redirected: %v", name, err)
		}
		if err := os.Chmod(at+"file", 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(o.Upper + "/file"); string(data) != "data" {
			t.Errorf("%s: only the attributes were copied: %q, %v", name, data, err)
		}
		if n, err := unix.Lgetxattr(o.Upper+"/file", "trusted.overlay.metacopy", nil); err == nil {
			t.Errorf("%s: the copy has %d bytes of reference", name, n)
		}
	}
}

// look mounts, checks the root and returns its path.
func look(t *testing.T, o Overlay, attr int, mount func(Overlay, int) (int, error)) string {
	t.Helper()
	fd, err := mount(o, attr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	at := fmt.Sprintf("/proc/self/fd/%d/", fd)
	if which, err := os.ReadFile(at + "which"); err != nil || string(which) != "0" {
		t.Errorf("the topmost layer is %q, %v", which, err)
	}
	if _, err := os.Stat(at + "file19"); err != nil {
		t.Error(err)
	}
	return at
}

func TestBind(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	plain, err := Bind(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(plain)
	if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/a", plain), nil, 0o644); err != nil {
		t.Error(err)
	}
	strict, err := Bind(dir, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(strict)
	var st unix.Statfs_t
	if err := unix.Fstatfs(strict, &st); err != nil || st.Flags&(unix.ST_RDONLY|unix.ST_NOEXEC|unix.ST_NOATIME) != unix.ST_RDONLY|unix.ST_NOEXEC|unix.ST_NOATIME {
		t.Errorf("flags %#x, %v", st.Flags, err)
	}
	// A copy of a mount has not its flags.
	path := fmt.Sprintf("/proc/self/fd/%d", strict)
	if err := os.WriteFile(path+"/b", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	if _, err := Bind(dir+"/none", 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// What the marks hide, the kernel does not show.
func TestMarks(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"upper/a", "lower/a"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"lower/a/hidden", "lower/gone", "lower/there"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, err := os.Open(dir + "/upper/a")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	before := IsOpaque(int(a.Fd()))
	if err := SetOpaque(int(a.Fd())); before || err != nil || !IsOpaque(int(a.Fd())) {
		t.Errorf("opaque before: %v, %v", before, err)
	}
	if err := unix.Mknod(dir+"/upper/gone", unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"upper/gone": true, "lower/gone": false, "upper/a": false} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || IsWhiteout(&st) != want {
			t.Errorf("%s: a whiteout is %v, %v", name, !want, err)
		}
	}
	fd, err := Mount(Overlay{Lower: []string{dir + "/upper", dir + "/lower"}}, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for name, want := range map[string]error{"there": nil, "gone": unix.ENOENT, "a": nil, "a/hidden": unix.ENOENT} {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, 0); err != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMaxLower(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	var o Overlay
	for i := range MaxLower + 1 {
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		o.Lower = append(o.Lower, dir)
	}
	if _, err := byLayers(o, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("%d: %v", len(o.Lower), err)
	}
	o.Lower = o.Lower[1:]
	fd, err := byLayers(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}
