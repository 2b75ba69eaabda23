package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/testutil"
)

func runsSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// unit asks systemd for properties of a unit.
func unit(t *testing.T, name string, properties ...string) map[string]string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "-p", strings.Join(properties, ","), name).Output()
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		m[key] = value
	}
	return m
}

// TestSystemd: the groups are a scope's, with limits of which systemd knows.
func TestSystemd(t *testing.T) {
	if !runsSystemd() {
		t.Skip("needs systemd")
	}
	b := newBench(t, "sleep", "1000")
	name := "pre-" + b.id + ".scope"
	b.change(func(s *specs.Spec) {
		limit, swap, pids, quota, period, shares := int64(64<<20), int64(96<<20), int64(50), int64(25000), uint64(50000), uint64(2048)
		s.Linux.CgroupsPath = "tare-tests.slice:pre:" + b.id
		r := s.Linux.Resources
		if r == nil {
			r = &specs.LinuxResources{}
			s.Linux.Resources = r
		}
		r.Memory, r.Pids = &specs.LinuxMemory{Limit: &limit, Swap: &swap}, &specs.LinuxPids{Limit: &pids}
		r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares, Cpus: "0"}
	})
	must := func(args ...string) string {
		t.Helper()
		out, code := b.run(append([]string{"--systemd-cgroup"}, args...)...)
		if code != 0 {
			t.Fatalf("%v: %s", args, out)
		}
		return out
	}
	must("run", "-d", b.id)
	where := "/tare.slice/tare-tests.slice/" + name
	check := func(when string, want map[string]string) {
		t.Helper()
		names := make([]string, 0, len(want))
		for n := range want {
			names = append(names, n)
		}
		for n, have := range unit(t, name, names...) {
			if have != want[n] {
				t.Errorf("%s: %s is %q, want %q", when, n, have, want[n])
			}
		}
	}
	check("begun", map[string]string{"ControlGroup": where, "Slice": "tare-tests.slice", "Delegate": "yes", "ActiveState": "active", "TasksMax": "50", "CPUQuotaPerSecUSec": "500ms"})
	if out := must("exec", b.id, "cat", "/proc/self/cgroup"); !strings.Contains(out, ":/\n") { // the root of its cgroup namespace
		t.Errorf("exec is in %s", out)
	}
	if v2, err := os.ReadFile("/sys/fs/cgroup" + where + "/memory.max"); err == nil {
		check("begun", map[string]string{"MemoryMax": "67108864", "MemorySwapMax": "33554432", "CPUWeight": "174", "AllowedCPUs": "0"})
		must("update", "--memory", "128M", "--memory-swap", "256M", "--pids-limit", "70", "--cpu-quota", "12345", b.id)
		check("changed", map[string]string{"MemoryMax": "134217728", "TasksMax": "70", "CPUQuotaPerSecUSec": "250ms"})
		if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil { // which writes all anew
			t.Errorf("daemon-reload: %v: %s", err, out)
		}
		if v2, err = os.ReadFile("/sys/fs/cgroup" + where + "/memory.max"); err != nil || string(v2) != "134217728\n" {
			t.Errorf("memory.max is %q: %v", v2, err)
		}
	}
	must("pause", b.id)
	must("resume", b.id)
	if out, code := b.run("--systemd-cgroup", "run", b.id+"-second"); code != 1 || !strings.Contains(out, "another container may use it") {
		t.Error(out, code)
	}
	must("kill", b.id, "KILL")
	testutil.Eventually(t, 10*time.Second, "the container stops", func() bool { return strings.Contains(must("state", b.id), `"status": "stopped"`) })
	must("delete", b.id)
	check("deleted", map[string]string{"ActiveState": "inactive"})
	if _, err := os.Stat("/sys/fs/cgroup" + where); !os.IsNotExist(err) {
		t.Error("the group is left:", err)
	}
	_ = exec.Command("systemctl", "stop", "tare-tests.slice", "tare.slice").Run()
}

// TestSystemdNames: what is no name of a unit is refused before anything is
// made, and all is where no systemd runs.
func TestSystemdNames(t *testing.T) {
	for path, want := range map[string]string{"/a/b": `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead`,
		"a--b.slice:p:n": "invalid slice name: a--b.slice", "scope:p:n": "invalid slice name: scope", "-.slice:p:": "names no unit",
		"system.slice:p:n": "systemd not running on this host"} {
		b := newBench(t, "true")
		b.change(func(s *specs.Spec) { s.Linux.CgroupsPath = path })
		if path == "system.slice:p:n" && runsSystemd() {
			continue
		}
		if out, code := b.run("--cgroup-manager", "systemd", "run", b.id); code != 1 || !strings.Contains(out, want) {
			t.Error(path, out, code)
		}
	}
}
