package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestSyncs watches the daemon and its waiting processes: a run that removes
// itself waits for no disk, and a create that is to last does.
func TestSyncs(t *testing.T) {
	testutil.RequireRoot(t)
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is missing; make test installs it")
	}
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "--rm", "busybox", "true")
	if syncs := watchSyncs(t, d, func() { d.Tare(t, "run", "--rm", "busybox", "sh", "-c", "echo x > /x") }); syncs != "" {
		t.Errorf("run --rm syncs:\n%s", syncs)
	}
	if syncs := watchSyncs(t, d, func() { d.Tare(t, "create", "busybox") }); !strings.Contains(syncs, "fsync(") {
		t.Errorf("create does not sync: %q", syncs)
	}
}

// watchSyncs traces the daemon and its children while f runs and returns the
// calls that wait for a disk.
func watchSyncs(t *testing.T, d *daemon.Daemon, f func()) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trace")
	args := []string{"-f", "-e", "trace=fsync,fdatasync,syncfs,sync", "-o", out, "-p", fmt.Sprint(d.Pid())}
	var children []byte
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.Pid()))
	for _, file := range all {
		data, _ := os.ReadFile(file)
		children = append(children, data...)
	}
	for _, pid := range strings.Fields(string(children)) {
		args = append(args, "-p", pid)
	}
	strace := exec.Command("strace", args...)
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 10*time.Second, "strace has attached", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid()))
		return err == nil && strings.Contains(string(status), fmt.Sprintf("TracerPid:\t%d\n", strace.Process.Pid))
	})
	f()
	// Killed, as it may wait for ever for a thread to detach from; each line is
	// in the file at once.
	_ = strace.Process.Kill()
	_ = strace.Wait()
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var syncs []string
	for _, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, "sync") {
			syncs = append(syncs, line)
		}
	}
	return strings.Join(syncs, "\n")
}
