package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestGivesUp interrupts a program that minds no signal, as process 1 without a
// handler does: at the third time the client leaves it alone.
func TestGivesUp(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	cmd, errOut := foreground(t, d, "deaf", "sleep", "1000")
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.After(20 * time.Second)
	for sent := 0; ; sent++ {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
			if code := cmd.ProcessState.ExitCode(); code != 1 || sent < 2 || !strings.Contains(errOut.String(), "got 3 SIGTERM/SIGINTs, forcefully exiting") {
				t.Errorf("after %d signals: exit code %d, %q", sent+1, code, errOut.String())
			}
			if out := d.Tare(t, "inspect", "--format", "{{.State.Status}}", "deaf"); out != "running" {
				t.Errorf("the container is %s", out)
			}
			return
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("the client does not give up")
		}
	}
}

// TestDaemonGone kills the daemon below a client in the foreground, which says
// so; the container goes on.
func TestDaemonGone(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	cmd, errOut := foreground(t, d, "alone", "sh", "-c", "while ! test -e /go; do sleep 0.05; done; exit 3")
	pid := d.Tare(t, "inspect", "--format", "{{.State.Pid}}", "alone")
	d.Signal(t, syscall.SIGKILL)
	if err := os.WriteFile("/proc/"+pid+"/root/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(errOut.String(), "the connection to the daemon broke; the container goes on without this client") {
		t.Errorf("exit code %d, %q", code, errOut.String())
	}
	d.Up(t)
	if out := d.Tare(t, "wait", "alone"); out != "3" {
		t.Errorf("its exit code is %s", out)
	}
}

// foreground runs a command of busybox in the container name with a client that
// stays, and returns that client and what it says once the container runs.
func foreground(t *testing.T, d *daemon.Daemon, name string, command ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := d.Command(t, "tare", append([]string{"run", "--name", name, "busybox"}, command...)...)
	errOut := &bytes.Buffer{}
	cmd.Stderr = errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 10*time.Second, "it runs", func() bool {
		out, err := d.Try("inspect", "--format", "{{.State.Status}}", name)
		return err == nil && out == "running"
	})
	return cmd, errOut
}
