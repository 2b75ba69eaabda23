package ocirun

import (
	"context"
	"os"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// show prints what the kernel keeps for a process.
const show = "cut -d' ' -f41 /proc/self/stat; grep Cpus_allowed_list /proc/self/status; cat /proc/self/personality; head -n1 /proc/self/numa_maps | cut -d' ' -f2"

func TestTaskAttributes(t *testing.T) {
	clean(t)
	dir, s := shell(t, show)
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	out, status := run(t, dir, s)
	if f := strings.Fields(out); status.Code() != 0 || len(f) != 5 || f[0] != "3" || f[3] != "00000008" || f[4] != "bind:0" {
		t.Fatalf("got %q, code %d", out, status.Code())
	}
}

// TestAffinity: where this process may run is no matter of the container.
func TestAffinity(t *testing.T) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil || all.Count() < 2 {
		t.Skip("needs two processors")
	}
	dir, s := shell(t, "grep -c . /proc/cpuinfo >/dev/null; grep Cpus_allowed: /proc/self/status")
	want, _ := run(t, dir, s)
	first := 0
	for !all.IsSet(first) {
		first++
	}
	one.Set(first)
	for _, d := range threads(t) {
		_ = unix.SchedSetaffinity(d, &one)
	}
	defer func() {
		for _, d := range threads(t) {
			_ = unix.SchedSetaffinity(d, &all)
		}
	}()
	if got, _ := run(t, dir, s); got != want {
		t.Errorf("got %q instead of %q", got, want)
	}
}

func threads(t *testing.T) (out []int) {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n := 0
		for _, c := range e.Name() {
			n = 10*n + int(c-'0')
		}
		out = append(out, n)
	}
	return out
}

func TestExecAffinity(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "sleep", "60")
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := *s.Process
	p.Scheduler = nil
	p.Args = []string{"sh", "-c", show}
	for _, cpus := range []specs.CPUAffinity{{Initial: "0"}, {Initial: "0", Final: "1"}, {Final: "0"}} {
		want := cpus.Final
		if want == "" {
			want = cpus.Initial
		}
		if want == "1" && runtime.NumCPU() < 2 {
			continue
		}
		p.ExecCPUAffinity = &cpus
		out, code := execIn(t, c, &p)
		if f := strings.Fields(out); code != 0 || f[0] != "3" || f[2] != want {
			t.Errorf("%+v: got %q, code %d", cpus, out, code)
		}
	}
}

// TestEffectiveCapabilities looks before the program is executed, by which the
// kernel reckons them anew.
func TestEffectiveCapabilities(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "true")
	s.Process.Capabilities.Effective = []string{"CAP_KILL"}
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	if b, err := os.ReadFile("/proc/" + itoa(c.Pid()) + "/status"); err != nil || !strings.Contains(string(b), "CapEff:\t0000000000000020\n") {
		t.Errorf("%v in %s", err, b)
	}
}

// execIn runs a further process and gives its output.
func execIn(t *testing.T, c *Container, p *specs.Process) (string, int) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	proc, err := c.Exec(context.Background(), ExecOptions{Process: p, Stdio: [3]*os.File{nil, f, f}})
	if err != nil {
		t.Fatal(err)
	}
	status, err := proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	out, _ := os.ReadFile(f.Name())
	return string(out), status.Code()
}

// stop ends a container with all its processes.
func stop(t *testing.T, c *Container) {
	_ = c.Signal(unix.SIGKILL, true)
	_, _ = c.Wait()
	if err := c.Delete(); err != nil {
		t.Error(err)
	}
}

func TestCapabilityWarnings(t *testing.T) {
	var warned []string
	s := parseCapabilities(&specs.LinuxCapabilities{Bounding: []string{"CAP_NONSENSE", "CAP_KILL"}, Permitted: []string{"CAP_KILL", "CAP_CHOWN"},
		Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL", "CAP_CHOWN"}}, ^uint64(0), func(w string) { warned = append(warned, w) })
	if s.bounding != 1<<5 || s.ambient != 1<<5 || len(warned) != 2 {
		t.Errorf("got %+v, %q", s, warned)
	}
}

func TestEnvironment(t *testing.T) {
	b := &builder{home: "/root"}
	got := strings.Join(b.environment(&specs.Process{Env: []string{"A=1", "HOME=", "B=2", "A=3"}}), " ")
	if got != "B=2 A=3 HOME=/root" {
		t.Errorf("got %q", got)
	}
}

// TestDirectoryOfAnother: the working directory may be closed to root without
// capabilities and open to the user, or the other way round.
func TestDirectoryOfAnother(t *testing.T) {
	clean(t)
	dir, s := shell(t, "pwd")
	s.Process.Capabilities = &specs.LinuxCapabilities{}
	s.Process.Cwd = "/home"
	s.Process.User = specs.User{UID: 1000, GID: 1000}
	if err := os.MkdirAll(dir+"/rootfs/home", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, owner := range []int{0, 1000} {
		if err := os.Chown(dir+"/rootfs/home", owner, owner); err != nil {
			t.Fatal(err)
		}
		if out, status := run(t, dir, s); status.Code() != 0 || out != "/home\n" {
			t.Errorf("of %d: got %q, code %d", owner, out, status.Code())
		}
	}
}

// TestSearchUnderFilter: profiles older than faccessat2 forbid it.
func TestSearchUnderFilter(t *testing.T) {
	clean(t)
	dir, s := bundle(t, "/bin/echo", "found")
	s.Process.NoNewPrivileges = false
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"faccessat2", "faccessat"}, Action: specs.ActErrno}}}
	if out, _ := run(t, dir, s); out != "found\n" {
		t.Errorf("got %q", out)
	}
}

func TestKernelMemoryIsWarnedOf(t *testing.T) {
	n, warned := int64(1<<20), ""
	s := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n, Kernel: &n}}}}
	b := &builder{spec: s, warn: func(w string) { warned = w }}
	if r := b.resources(); r.Memory.Kernel != nil || r.Memory.Limit == nil || s.Linux.Resources.Memory.Kernel == nil || !strings.Contains(warned, "memory.kernel") {
		t.Errorf("got %+v, %q", r.Memory, warned)
	}
	for _, with := range []bool{true, false} {
		warned = ""
		s.Linux.Resources.Memory = &specs.LinuxMemory{UseHierarchy: &with}
		if b.resources(); strings.Contains(warned, "useHierarchy") == with {
			t.Errorf("useHierarchy %v: %q", with, warned)
		}
	}
}
