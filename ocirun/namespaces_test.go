package ocirun

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A further process of a container whose namespaces cannot be read would be one of
// the host. That they could not be read once is not remembered.
func TestNamespacesThatCannotBeRead(t *testing.T) {
	c := &Container{pid: unix.Getpid()}
	namesOfOwn.Store(nil)
	var limit unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Max: nofile(t)}, &limit); err != nil {
		t.Fatal(err)
	}
	list, err := c.separate()
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Errorf("no file can be opened, and the container has %v", list)
	}
	if list, err := c.separate(); err != nil || len(list) < 6 {
		t.Errorf("one's own: %v, %v", list, err)
	}
	dead := exec.Command("true")
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	defer dead.Wait()
	if err := unix.Waitid(unix.P_PID, dead.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if list, err := (&Container{pid: dead.Process.Pid}).separate(); err == nil {
		t.Errorf("a zombie has %v", list)
	}
}

func nofile(t *testing.T) uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return limit.Max
}
