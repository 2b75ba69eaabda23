package e2e

import (
	"bytes"
	"os"
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
	cmd := d.Command(t, "tare", "run", "--name", "deaf", "busybox", "sleep", "1000")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 10*time.Second, "it runs", func() bool {
		out, err := d.Try("inspect", "--format", "{{.State.Status}}", "deaf")
		return err == nil && out == "running"
	})
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
	cmd := d.Command(t, "tare", "run", "--name", "alone", "busybox", "sh", "-c", "while ! test -e /go; do sleep 0.05; done; exit 3")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 10*time.Second, "it runs", func() bool {
		out, err := d.Try("inspect", "--format", "{{.State.Status}}", "alone")
		return err == nil && out == "running"
	})
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
