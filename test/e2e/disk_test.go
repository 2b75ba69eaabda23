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
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
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
	before := d.Tare(t, "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}")
	saved := filepath.Join(d.Dir, "saved.tar")
	d.Tare(t, "save", "-o", saved, "busybox")
	reg := registry.Start(t, registry.Options{})
	images.Copy(t, "docker-archive:"+saved, "docker://"+reg.Host+"/other:1", "--dest-tls-verify=false")

	fill := filepath.Join(data, "fill")
	if err := os.WriteFile(fill, make([]byte, 16<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	for _, argv := range [][]string{{"import", daemon.Busybox(t), "second"}, {"load", "-i", saved}, {"commit", "running", "second"},
		{"tag", "busybox", "second"}, {"pull", reg.Host + "/other:1"}, {"create", "--name", "full", "busybox"}} {
		if _, err := d.Try(argv...); err == nil || strings.Count(err.Error(), "no space left on device") != 1 {
			t.Errorf("on a full disk: %v", err)
		}
	}
	if after := d.Tare(t, "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}"); after != before {
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
