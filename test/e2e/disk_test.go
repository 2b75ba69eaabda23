package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestFullDisk fills the daemon's disk: what cannot be stored is refused in
// one sentence, what was there stays whole, and nothing half-made is left.
func TestFullDisk(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	data := filepath.Join(d.Dir, "data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", data, "tmpfs", 0, "size=12m"); err != nil {
		t.Fatal(err)
	}
	d.AtEnd(func() error { return unix.Unmount(data, unix.MNT_DETACH) })
	d.Up(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "running", "busybox", "sleep", "1000")
	d.Tare(t, "run", "-d", "--name", "doomed", "busybox", "sleep", "1000")
	before := d.Tare(t, "images", "--no-trunc")

	fill := filepath.Join(data, "fill")
	if err := os.WriteFile(fill, make([]byte, 16<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	if _, err := d.Try("import", daemon.Busybox(t), "second"); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("an import on a full disk: %v", err)
	}
	if _, err := d.Try("create", "--name", "full", "busybox"); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("a create on a full disk: %v", err)
	}
	if after := d.Tare(t, "images", "--no-trunc"); after != before {
		t.Errorf("the images changed:\n%s\nwere\n%s", after, before)
	}
	d.Signal(t, syscall.SIGKILL)
	d.Up(t)
	if out := d.Tare(t, "ps", "-a", "--format", "{{.Names}} {{.State}}"); out != "doomed running\nrunning running" {
		t.Errorf("listed after a restart of the daemon: %s", out)
	}
	d.Tare(t, "stop", "-t", "0", "running")
	d.Tare(t, "rm", "-f", "doomed")
	d.Signal(t, syscall.SIGKILL)
	d.Up(t)
	if out := d.Tare(t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "running"); out != "exited 137" {
		t.Errorf("an end that could not be written is remembered as %s", out)
	}
	if out := d.Tare(t, "ps", "-a", "--format", "{{.Names}} {{.State}}"); out != "running exited" {
		t.Errorf("listed after the end of both: %s", out)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if out := d.Tare(t, "run", "--rm", "--name", "full", "busybox", "echo", "room again"); out != "room again" {
		t.Errorf("with room again: %q", out)
	}
}
