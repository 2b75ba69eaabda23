package testutil

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
)

// AsHost runs the rest of the test in a process that has a network namespace of
// its own, with lo down, and tells whether this is that process. Flags are more of
// the test binary's, for that process.
func AsHost(t testing.TB, flags ...string) bool {
	t.Helper()
	RequireRoot(t)
	const variable = "TARE_TEST_HOST"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	if _, ok := t.(*testing.B); ok {
		args = []string{"-test.run=^$", "-test.bench=^" + t.Name() + "$", "-test.benchtime=200x"}
	}
	cmd := exec.Command("/proc/self/exe", append(args, flags...)...)
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || testing.Verbose() {
		t.Logf("in its own network namespace:\n%s", out)
	}
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name()+" ")) {
		t.Skip("skipped in its own network namespace")
	}
	return false
}

// NewNetNS makes a network namespace that lasts until the test ends.
func NewNetNS(t testing.TB) *os.File {
	t.Helper()
	var ns *os.File
	var err error
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// InNetNS runs f on a thread in the namespace. Sockets that it makes stay there.
func InNetNS(t testing.TB, ns *os.File, f func() error) {
	t.Helper()
	if err := TryInNetNS(ns, f); err != nil {
		t.Fatal(err)
	}
}

// TryInNetNS is InNetNS for what may fail.
func TryInNetNS(ns *os.File, f func() error) (err error) {
	thread.Own(func() bool {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
		return false
	})
	return err
}
