package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
)

// TestExecWithoutMemory: a container at its limit costs the process that is
// executed in it its life, and not the runtime, whose memory that shares at first.
// The kernel has nobody else to choose here, for init is in another group.
func TestExecWithoutMemory(t *testing.T) {
	top, limitFile, usedFile, all := "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.limit_in_bytes"
	if unified, err := cgroupfs.Unified(); err != nil || unified {
		top, limitFile, usedFile, all = "/sys/fs/cgroup", "memory.max", "memory.current", "memory.reclaim"
	}
	if _, err := os.Stat(top + "/memory.stat"); err != nil {
		t.Skip("needs the memory controller")
	}
	b := newBench(t, "sleep", "60")
	b.change(func(s *specs.Spec) {
		limit := int64(8 << 20)
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	})
	pidFile := filepath.Join(b.bundle, "pid")
	b.must("run", "-d", "--pid-file", pidFile, b.id)
	group := filepath.Join(top, b.id)
	if err := os.WriteFile(top+"/cgroup.procs", []byte(strconv.Itoa(number(pidFile))), 0); err != nil {
		t.Fatal(err)
	}
	for i := range 24 { // with room for all of its first steps, or not
		room := i % 6 << 14
		testutil.Eventually(t, 10*time.Second, "the limit is what is in use", func() bool {
			// What is kept in store is taken, on version 1 by a limit that is refused.
			if fd, err := unix.Open(filepath.Join(group, all), unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil { // EAGAIN tells that not all was got
				_, _ = unix.Write(fd, []byte(map[bool]string{true: "0", false: "1G"}[all == limitFile]))
				unix.Close(fd)
			}
			used, _ := os.ReadFile(filepath.Join(group, usedFile))
			n, err := strconv.Atoi(strings.TrimSpace(string(used)))
			return err == nil && os.WriteFile(filepath.Join(group, limitFile), []byte(strconv.Itoa(n+room)), 0) == nil
		})
		out, code := b.run("exec", b.id, "true")
		if code != 0 && code != 137 && !(code == 255 && strings.Contains(out, "killed")) {
			t.Errorf("room for %d bytes: exit code %d: %s", room, code, out)
		}
	}
	if out, code := b.run("state", b.id); code != 0 || !strings.Contains(out, "running") {
		t.Errorf("the container: %d, %s", code, out)
	}
}

// TestCreateWithoutMemory: a limit at which no container can begin is told, by a
// runtime that lives.
func TestCreateWithoutMemory(t *testing.T) {
	b := newBench(t, "true")
	told := false
	for limit := int64(4 << 10); limit <= 4<<20; limit *= 2 {
		b.change(func(s *specs.Spec) {
			swap := limit
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &swap}
		})
		out, code := b.run("run", b.id)
		oom := code == 1 && strings.Contains(out, "container init was OOM-killed (memory limit too low?)")
		if told = told || oom; !oom && code != 0 && code != 137 {
			t.Errorf("limit %d: exit code %d: %s", limit, code, out)
		}
	}
	if !told {
		t.Error("no limit was too low")
	}
}
