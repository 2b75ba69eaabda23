package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/internal/testutil"
)

// TestExecWithoutMemory: a container at its limit costs the process that is
// executed in it its life, and not the runtime, whose memory that shares at first.
// The kernel has nobody else to choose here, for init is in another group.
func TestExecWithoutMemory(t *testing.T) {
	const top = "/sys/fs/cgroup/memory"
	if _, err := os.Stat(top + "/memory.limit_in_bytes"); err != nil {
		t.Skip("needs cgroup v1")
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
			_ = os.WriteFile(group+"/memory.limit_in_bytes", []byte("0"), 0) // which takes what is kept in store
			used, _ := os.ReadFile(group + "/memory.usage_in_bytes")
			n, err := strconv.Atoi(strings.TrimSpace(string(used)))
			return err == nil && os.WriteFile(group+"/memory.limit_in_bytes", []byte(strconv.Itoa(n+room)), 0) == nil
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
