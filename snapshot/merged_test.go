package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReadFileMerged(t *testing.T) {
	testutil.RequireRoot(t) // whiteouts are device nodes
	top, low := t.TempDir(), t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	put(t, outside, "outside")
	put(t, low+"/etc/passwd", "low")
	put(t, low+"/etc/gone", "hidden")
	put(t, low+"/opaque/x", "hidden")
	put(t, low+"/usr/lib/group", "by link")
	put(t, top+"/etc/hosts", "top")
	put(t, top+"/opaque/y", "seen")
	if err := unix.Mknod(top+"/etc/gone", unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(top+"/opaque", "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"/etc/group": "/usr/lib/group", "/etc/up": "../../../../usr/lib/group", "/loop": "/loop", "/escape": outside,
		"/lib": "usr/lib",
	} {
		if err := os.Symlink(target, top+link); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(top+"/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	// A device that no driver has: opening it would be another error.
	if err := unix.Mknod(top+"/device", unix.S_IFCHR|0o666, int(unix.Mkdev(4000, 1))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/etc/passwd": "low", "etc/hosts": "top", "/etc/group": "by link", "/etc/up": "by link",
		"/opaque/y": "seen", "/lib/group": "by link", "/lib/../lib/group": "by link",
	} {
		if got, err := ReadFile([]string{top, low}, name, 100); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"/etc/gone", "/opaque/x", "/loop", "/escape", "/fifo", "/device", "/etc", "/none", "/etc/passwd/x"} {
		if got, err := ReadFile([]string{top, low}, name, 100); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v; want none", name, got, err)
		}
	}
}
