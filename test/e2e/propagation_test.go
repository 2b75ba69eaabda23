package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestHostMountsFollow mounts something below a source while the container
// runs: who asked to follow the host sees it, and nobody else.
func TestHostMountsFollow(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	secret, outer := filepath.Join(d.Dir, "secret"), filepath.Join(d.Dir, "outer")
	inner := filepath.Join(outer, "inner")
	mountAt := func(path string, propagation uintptr) {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tare-test", path, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(path, outer+"/") { // which goes with it
			d.AtEnd(func() error { return unix.Unmount(path, unix.MNT_DETACH) })
		}
		if err := unix.Mount("", path, "", propagation, ""); err != nil {
			t.Fatal(err)
		}
	}
	mountAt(secret, unix.MS_PRIVATE)
	mountAt(outer, unix.MS_SHARED)
	d.Up(t)
	d.ImportBusybox(t)
	if _, err := d.Try("create", "-v", secret+":/m:rslave", "busybox"); err == nil || !strings.Contains(err.Error(), "path "+secret+" is mounted on "+secret+" but it is not a shared or slave mount") {
		t.Errorf("to follow what tells nobody: %v", err)
	}
	if _, err := d.Try("create", "-v", secret+":/m:rshared", "busybox"); err == nil || !strings.Contains(err.Error(), "path "+secret+" is mounted on "+secret+" but it is not a shared mount") {
		t.Errorf("to be followed by what is told nothing: %v", err)
	}
	d.Tare(t, "run", "-d", "--name", "follows", "--mount", "type=bind,src="+outer+",dst=/m,bind-propagation=rslave", "-v", outer+":/n", "busybox", "sleep", "1000")
	mountAt(inner, unix.MS_PRIVATE)
	if err := os.WriteFile(filepath.Join(inner, "late"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := d.Tare(t, "exec", "follows", "find", "/m", "/n", "-name", "late"); out != "/m/inner/late" {
		t.Errorf("the container sees %q", out)
	}
	d.Tare(t, "rm", "-f", "follows")

	// And the other way: the host has what a container mounts, and keeps its own.
	for _, runtime := range []string{"tarerun", "runc"} {
		made := filepath.Join(outer, "made-"+runtime)
		d.Tare(t, "run", "--rm", "--runtime", runtime, "--privileged", "-v", outer+":/m:rshared", "busybox", "sh", "-c",
			"mkdir /m/made-"+runtime+" && mount -t tmpfs made /m/made-"+runtime+" && touch /m/made-"+runtime+"/file")
		if _, err := os.Stat(filepath.Join(made, "file")); err != nil {
			t.Errorf("%s: the host does not see what the container has mounted: %v", runtime, err)
		}
		if _, err := os.Stat(filepath.Join(inner, "late")); err != nil {
			t.Errorf("%s: the end of a container took a mount of the host: %v", runtime, err)
		}
	}
}
