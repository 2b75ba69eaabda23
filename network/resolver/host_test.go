package resolver

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
)

// asHost runs the rest of the test in a process whose network namespace is
// new, and tells whether this is that process.
func asHost(t testing.TB) bool {
	t.Helper()
	testutil.RequireRoot(t)
	const variable = "TARE_RESOLVER_TEST_HOST"
	if os.Getenv(variable) == t.Name() {
		must(t, func() error { return ifUp("lo") }())
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || testing.Verbose() {
		t.Logf("in its own network namespace:\n%s", out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ifUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// place is a network namespace to act in.
type place struct{ ns *os.File }

func (p place) try(f func() error) (err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	thread.Own(func() bool {
		if err = unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return true
		}
		err = f()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	})
	return err
}
