package ocirun

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestWaitsFiltered: a created process that can gain no privileges has its filter
// while it waits, unless the filter is in the way of the wait.
func TestWaitsFiltered(t *testing.T) {
	clean(t)
	denies := func(name string) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{{Names: []string{name}, Action: specs.ActErrno}}}
	}
	filtered := func(pid int) bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return strings.Contains(string(text), "\nSeccomp:\t2\n")
	}
	for name, want := range map[string]bool{"reboot": true, "read": false, "exit_group": false} {
		dir, s := bundle(t, "true")
		s.Process.NoNewPrivileges, s.Linux.Seccomp = true, denies(name)
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
		if err != nil {
			t.Fatal(err)
		}
		waits := func() bool { // init does no more until it is started
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", c.Pid()))
			return strings.HasPrefix(string(text), fmt.Sprint(unix.SYS_READ, " "))
		}
		for deadline := time.Now().Add(10 * time.Second); !waits() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		if got := filtered(c.Pid()); got != want {
			t.Errorf("without %s: waits with a filter: %v", name, got)
		}
		if err := c.Start(); err != nil {
			t.Error(name, err)
		}
		status, err := c.Wait()
		if err != nil || name != "exit_group" && status.Code() != 0 {
			t.Errorf("without %s: %v, %v", name, status, err)
		}
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
	}
}
