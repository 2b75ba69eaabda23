package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// inNamespace runs f on a thread that ends with a mount namespace of its own.
func inNamespace(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// What the host says of the file system that its own tree lies on is not said
// to the container, as with an overlay.
func TestRootOfADirectory(t *testing.T) {
	testutil.RequireRoot(t)
	host, target := t.TempDir(), filepath.Join(t.TempDir(), "rootfs")
	err := inNamespace(func() error {
		if err := unix.Mount("tmpfs", host, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return err
		}
		if err := os.Mkdir(host+"/tree", 0o755); err != nil {
			return err
		}
		if mounted, err := mountRoot(supervise.Rootfs{Dir: host + "/tree"}, false, target); err != nil || !mounted {
			return fmt.Errorf("mounted: %v, %w", mounted, err)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(target, &st); err != nil || st.Flags&(unix.ST_NOSUID|unix.ST_NODEV|unix.ST_NOEXEC) != 0 {
			return fmt.Errorf("flags %#x, %w", st.Flags, err)
		}
		if err := os.WriteFile(target+"/a", nil, 0o644); err != nil {
			return err
		}
		if _, err := os.Stat(host + "/tree/a"); err != nil {
			return err
		}
		if _, err := mountRoot(supervise.Rootfs{Dir: host + "/tree", ReadOnly: true}, false, target); err != nil {
			return err
		}
		if err := os.WriteFile(target+"/b", nil, 0o644); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("a read-only root was written to: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRootOfAnOverlay(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	for _, name := range []string{"low", "lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := supervise.Rootfs{Lower: []string{root + "/low", root + "/lower"}, Upper: root + "/upper", Work: root + "/work", Volatile: true}
	err := inNamespace(func() error {
		for _, name := range []string{"one", "two"} { // again, as at a restart
			if mounted, err := mountRoot(r, false, root+"/rootfs"); err != nil || !mounted {
				return fmt.Errorf("mounted: %v, %w", mounted, err)
			}
			if err := os.WriteFile(root+"/rootfs/"+name, nil, 0o644); err != nil {
				return err
			}
			if err := unix.Unmount(root+"/rootfs", 0); err != nil {
				return err
			}
		}
		r.Upper, r.Work, r.Volatile = "", "", false
		if _, err := mountRoot(r, false, root+"/rootfs"); err != nil {
			return err
		}
		if err := os.WriteFile(root+"/rootfs/three", nil, 0o644); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("layers without a writable one were written to: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := os.Stat(root + "/upper/" + name); err != nil {
			t.Error(err)
		}
	}
	if mounted, err := mountRoot(supervise.Rootfs{}, false, root+"/none"); mounted || err != nil {
		t.Error(mounted, err)
	}
}
