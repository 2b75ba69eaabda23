package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestRealtime: the kernel schedules a container's process by real time within the
// budget that the container asked for, of what the daemon gives to all.
func TestRealtime(t *testing.T) {
	testutil.RequireRoot(t)
	const root = "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(root + "/cpu.rt_period_us"); err != nil {
		t.Skip("the kernel has no groups of real-time processes, or control groups of version 2 alone")
	}
	d := daemon.Start(t, "--cpu-rt-period", "1000000", "--cpu-rt-runtime", "20000")
	d.ImportBusybox(t)
	d.Tare(t, "run", "-d", "--name", "rt", "--cpu-rt-period", "500000", "--cpu-rt-runtime", "5000", "--cap-add", "SYS_NICE", "busybox", "sleep", "1000")
	group := filepath.Join(root, d.Cgroup, d.Tare(t, "inspect", "--format", "{{.Id}}", "rt"))
	for file, want := range map[string]string{group + "/cpu.rt_period_us": "500000", group + "/cpu.rt_runtime_us": "5000", filepath.Join(root, d.Cgroup) + "/cpu.rt_runtime_us": "20000"} {
		if got, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: %s %v, want %s", file, got, err, want)
		}
	}
	// A group without a budget lets nobody in.
	d.Tare(t, "run", "-d", "--name", "plain", "busybox", "sleep", "1000")
	for name, want := range map[string]error{"rt": nil, "plain": unix.EPERM} {
		pid, err := strconv.Atoi(d.Tare(t, "inspect", "--format", "{{.State.Pid}}", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 7}, 0); !errors.Is(err, want) {
			t.Errorf("real time for %s: %v, want %v", name, err, want)
		}
	}
	if out, err := d.Try("run", "--rm", "--cpu-rt-runtime", "400000", "busybox", "true"); err == nil || !strings.Contains(err.Error(), "real-time") {
		t.Errorf("more than all have: %s %v", out, err)
	}
	d.Tare(t, "update", "--cpu-rt-runtime", "7000", "rt")
	if got, err := os.ReadFile(group + "/cpu.rt_runtime_us"); err != nil || strings.TrimSpace(string(got)) != "7000" {
		t.Errorf("after the update: %s %v", got, err)
	}
}
