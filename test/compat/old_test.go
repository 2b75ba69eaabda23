package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// oldest builds the first version whose containers every later daemon takes
// over; old/COMMIT names it.
func oldest(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("old/COMMIT")
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(data))
	source, bin := t.TempDir(), t.TempDir()
	cmd := exec.Command("sh", "-c", `git -C "$1" archive "$2" | tar -x -C "$3"`, "sh", daemon.Root(), commit, source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the sources of %s: %v\n%s", commit, err, out)
	}
	if _, err := os.Stat(filepath.Join(source, "go.mod")); err != nil {
		t.Fatalf("commit %s is not in the repository's history", commit)
	}
	if err := daemon.Build(source, bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestOldContainers starts containers by the oldest daemon, replaces it by
// today's, and looks whether anything was lost.
func TestOldContainers(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	d.Use(oldest(t))
	d.Drop("--plugin-dir")
	d.Up(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "logger", "busybox", "sh", "-c", "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo tick $i; sleep 0.05; done; exit 11")
	d.Tare(t, "run", "-d", "-i", "--name", "piped", "busybox", "sh", "-c", "while read line; do echo got $line; done")
	d.Tare(t, "run", "-d", "-t", "-i", "--name", "terminal", "busybox", "sh")
	d.Tare(t, "run", "-d", "--name", "polite", "busybox", "sh", "-c", "trap 'exit 12' TERM; while :; do sleep 0.05; done")

	d.Signal(t, syscall.SIGKILL)
	d.Use(daemon.Bin(t))
	d.Up(t)

	if out := d.Tare(t, "exec", "polite", "echo", "in the old one"); out != "in the old one" {
		t.Errorf("exec: %q", out)
	}
	attach := d.Command(t, "tare", "attach", "piped")
	attach.Stdin = strings.NewReader("one\ntwo\n")
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = attach.Process.Kill(); _ = attach.Wait() }) // it waits for the container's end
	testutil.Eventually(t, 10*time.Second, "the piped container answers", func() bool {
		return strings.Contains(d.Tare(t, "logs", "piped"), "got two")
	})
	d.Tare(t, "exec", "terminal", "sh", "-c", "echo to the terminal > /dev/console")
	testutil.Eventually(t, 10*time.Second, "the terminal's output is logged", func() bool {
		return strings.Contains(d.Tare(t, "logs", "terminal"), "to the terminal")
	})
	d.Tare(t, "stop", "polite")
	if out := d.Tare(t, "wait", "polite"); out != "12" {
		t.Errorf("the stopped container's exit code is %s", out)
	}
	if out := d.Tare(t, "wait", "logger"); out != "11" {
		t.Errorf("the logger's exit code is %s", out)
	}
	if out := d.Tare(t, "logs", "logger"); strings.Count(out, "tick") != 60 {
		t.Errorf("%d of 60 lines are in the log", strings.Count(out, "tick"))
	}
}
