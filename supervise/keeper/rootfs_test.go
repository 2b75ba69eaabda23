package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// Both ways of mounting give the same root, with the topmost layer first, and
// with names that mean something in an option string.
func TestMounts(t *testing.T) {
	testutil.RequireRoot(t)
	for name, mount := range map[string]func(supervise.Overlay, string) error{"layers": mountLayers, "joined": mountJoined} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			o := supervise.Overlay{Upper: filepath.Join(root, "up,per"), Work: filepath.Join(root, "work")}
			target := filepath.Join(root, "target")
			dirs := []string{o.Upper, o.Work, target}
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
			done := make(chan error)
			go func() { // the thread ends with its mount namespace
				runtime.LockOSThread()
				done <- lookInside(mount, o, target)
			}()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(o.Upper, "new")); err != nil {
				t.Error(err)
			}
		})
	}
}

func lookInside(mount func(supervise.Overlay, string) error, o supervise.Overlay, target string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount(o, target); err != nil {
		return err
	}
	which, err := os.ReadFile(filepath.Join(target, "which"))
	if err != nil || string(which) != "0" {
		return fmt.Errorf("the topmost layer is %q, %v", which, err)
	}
	if _, err := os.Stat(filepath.Join(target, "file19")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(target, "new"), nil, 0o644)
}
