package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
	"golang.org/x/sys/unix"
)

func TestSettings(t *testing.T) {
	limit, swap, shares, quota, period, pids := int64(1<<20), int64(3<<20), uint64(1024), int64(50000), uint64(100000), int64(0)
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}, Pids: &specs.LinuxPids{Limit: &pids},
		CPU: &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period}, Unified: map[string]string{"memory.high": "5"}}
	v1 := "[{memory memory.limit_in_bytes 1048576} {memory memory.memsw.limit_in_bytes 3145728} {cpu cpu.shares 1024} {cpu cpu.cfs_period_us 100000} {cpu cpu.cfs_quota_us 50000} {pids pids.max 1}]"
	if got := fmt.Sprint(settingsV1(r)); got != v1 {
		t.Error(got)
	}
	v2 := "[{ memory.max 1048576} { memory.swap.max 2097152} { cpu.weight 100} { cpu.max 50000 100000} { pids.max 1} { memory.high 5}]"
	if got := fmt.Sprint(settingsV2(r)); got != v2 {
		t.Error(got)
	}
}

// TestRdma: a line for each device, in the kernel's words (cgroup-v2.rst, "RDMA
// Interface Files"), and as Update finds what was in force.
func TestRdma(t *testing.T) {
	three, none := uint32(3), uint32(0)
	r := &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{
		"mlx5_1": {HcaHandles: &three, HcaObjects: &none}, "mlx4_0": {HcaObjects: &three}}}
	if got, want := fmt.Sprint(settingsV1(r)), "[{rdma rdma.max mlx4_0 hca_object=3} {rdma rdma.max mlx5_1 hca_handle=3 hca_object=0}]"; got != want {
		t.Error(got)
	}
	if got := fmt.Sprint(settingsV2(r), neededV2(r)); got != "[{ rdma.max mlx4_0 hca_object=3} { rdma.max mlx5_1 hca_handle=3 hca_object=0}] [rdma]" {
		t.Error(got)
	}
	for want, l := range map[string]map[string]specs.LinuxRdma{
		"no name of a device":            {"a b": {HcaHandles: &three}},
		"needs hcaHandles or hcaObjects": {"a": {}},
	} {
		if err := (&Group{}).refuse(&specs.LinuxResources{Rdma: l}); err == nil || !strings.Contains(err.Error(), want) {
			t.Error(want, err)
		}
	}
}

func TestNotOnV2(t *testing.T) {
	off, on, none, some, zero, ten, weight := false, true, int64(0), int64(5), uint64(0), uint64(10), uint16(7)
	device := specs.LinuxWeightDevice{LeafWeight: &weight}
	for want, r := range map[string]*specs.LinuxResources{
		"memory.swappiness":               {Memory: &specs.LinuxMemory{Swappiness: &ten}},
		"memory.kernelTCP":                {Memory: &specs.LinuxMemory{KernelTCP: &some}},
		"memory.disableOOMKiller":         {Memory: &specs.LinuxMemory{DisableOOMKiller: &on}},
		"cpu.realtimeRuntime":             {CPU: &specs.LinuxCPU{RealtimeRuntime: &some}},
		"cpu.realtimePeriod":              {CPU: &specs.LinuxCPU{RealtimePeriod: &ten}},
		"blockIO.leafWeight":              {BlockIO: &specs.LinuxBlockIO{LeafWeight: &weight}},
		"blockIO.weightDevice.leafWeight": {BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{device}}},
		"network.priorities":              {Network: &specs.LinuxNetwork{Priorities: make([]specs.LinuxInterfacePriority, 1)}},
	} {
		if err := (&Group{Unified: true}).refuse(r); err == nil || !strings.Contains(err.Error(), "linux.resources."+want+" is not supported on cgroup v2") {
			t.Errorf("%s: %v", want, err)
		}
		if err := (&Group{}).refuse(r); err != nil {
			t.Errorf("%s on v1: %v", want, err)
		}
	}
	nothing := &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: &zero, KernelTCP: &none, DisableOOMKiller: &off},
		CPU: &specs.LinuxCPU{RealtimeRuntime: &none, RealtimePeriod: &zero}, BlockIO: &specs.LinuxBlockIO{}, Network: &specs.LinuxNetwork{}}
	if err := (&Group{Unified: true}).refuse(nothing); err != nil {
		t.Error(err)
	}
}

// TestEnable: a controller that the kernel does not enable is tried once, and
// not asked for in the groups below.
func TestEnable(t *testing.T) {
	fd, err := unix.MemfdCreate("control", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_, _ = unix.Write(fd, []byte("pids\n"))
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", fd), dir+"/cgroup.subtree_control"); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir+"/cgroup.subtree_control", unix.IN_OPEN|unix.IN_CLOSE_WRITE); err != nil {
		t.Fatal(err)
	}
	if there, err := enable(dir, []string{"cpu", "pids"}, nil); err != nil || !slices.Equal(there, []string{"pids"}) {
		t.Error(there, err)
	}
	n, _ := unix.Read(watch, make([]byte, 1024))
	if tries := n / unix.SizeofInotifyEvent / 2; tries != 1 {
		t.Errorf("%d tries", tries)
	}
	if _, err := enable(dir, []string{"cpu", "pids"}, []string{"cpu"}); err == nil {
		t.Error("nobody hears that a needed controller is not there")
	}
}

func TestRootIsRefused(t *testing.T) {
	for _, p := range []string{"/", "", "/a/..", "//"} {
		if _, err := At(p); err == nil {
			t.Errorf("%q was accepted", p)
		}
	}
}

// TestUnified uses a group of the v2 hierarchy, which also a hybrid machine has.
func TestUnified(t *testing.T) {
	testutil.RequireRoot(t)
	l, err := cgroupfs.Host()
	if err != nil {
		t.Fatal(err)
	}
	if l.V2 == nil {
		t.Skip("needs a mounted cgroup2")
	}
	m := Member{Dir: fmt.Sprintf("%s/tare-test-%s-%d", l.V2.Mount, t.Name(), os.Getpid()), Mount: l.V2.Mount}
	g := &Group{Members: []Member{m}, Unified: true}
	if err := g.create(nil); err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	one := int64(1)
	rules := []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "b", Major: &one, Access: "r"}, {Type: "c", Major: &one, Minor: &one, Access: "w"}}
	if err := g.setDevicesV2(rules); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read x; (: < /dev/null) && echo null; (: < /dev/kmsg) || echo no kmsg; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := write(m.Dir, "cgroup.procs", fmt.Sprint(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	text := make([]byte, 100)
	n, _ := out.Read(text)
	for string(text[:n]) != "null\nno kmsg\n" {
		more, err := out.Read(text[n:])
		if n += more; err != nil {
			t.Fatalf("got %q", text[:n])
		}
	}
	if err := g.Freeze(true); err != nil || !g.Frozen() {
		t.Error(err)
	}
	if err := g.Freeze(false); err != nil || g.Frozen() {
		t.Error(err)
	}
	if p, err := g.Procs(); err != nil || len(p) != 1 {
		t.Error(p, err)
	}
	if err := g.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
}

// TestNotPrepared: the group is made, and what it needs cannot be read.
func TestNotPrepared(t *testing.T) {
	testutil.RequireRoot(t)
	l, err := cgroupfs.Host()
	if err != nil {
		t.Fatal(err)
	}
	if l.V2 == nil {
		t.Skip("needs a mounted cgroup2")
	}
	g := &Group{Members: []Member{{Dir: fmt.Sprintf("%s/tare-test-%s-%d", l.V2.Mount, t.Name(), os.Getpid()), Mount: t.TempDir()}}, Unified: true}
	dir := g.Members[0].Dir
	defer os.Remove(dir)
	if err := g.create(nil); err == nil {
		t.Error("no failure")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("the group is left:", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil { // this time it is another's
		t.Fatal(err)
	}
	if err := g.create(nil); err == nil {
		t.Error("no failure")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestSub(t *testing.T) {
	g := &Group{Members: []Member{{[]string{"cpu", "cpuacct"}, "/g/cpu/c", "/g/cpu"}, {[]string{"memory"}, "/g/memory/c", "/g/memory"}}}
	for path, want := range map[string]string{"": "/g/cpu/c /g/memory/c", "/": "/g/cpu/c /g/memory/c", "a": "/g/cpu/c/a /g/memory/c/a",
		"cpuacct:b/x": "/g/cpu/c/b/x /g/memory/c", "memory,cpu:b": "/g/cpu/c/b /g/memory/c/b"} {
		s, err := g.Sub([]string{path})
		if err != nil || s.Members[0].Dir+" "+s.Members[1].Dir != want {
			t.Errorf("%s: %+v, %v", path, s, err)
		}
	}
	for _, path := range []string{"..", "../c-sibling", "cpu:../c2", "wheel:/", "a/../../d"} {
		if _, err := g.Sub([]string{path}); err == nil {
			t.Errorf("%q was taken", path)
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("%d shares are %d", shares, got)
		}
	}
}

// TestBoundOrder: a new pair that is above the old one's limit, and one below.
func TestBoundOrder(t *testing.T) {
	testutil.RequireRoot(t)
	quota, period := int64(50000), uint64(100000)
	g, err := Create(fmt.Sprintf("/tare-test-%s-%d", t.Name(), os.Getpid()), &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Delete()
	limit, swap := int64(30<<20), int64(50<<20)
	for range 2 {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}}
		if err := g.Update(r); err != nil {
			t.Error(err)
		}
		limit, swap = 60<<20, 80<<20
	}
}

// TestParentMadeHere: a group below one that was made for it is born with its
// cpuset.
func TestParentMadeHere(t *testing.T) {
	testutil.RequireRoot(t)
	name := fmt.Sprintf("/tare-test-%s-%d", t.Name(), os.Getpid())
	g, err := Create(name+"/child", nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := g.dir("cpuset")
	if dir == "" {
		t.Skip("needs cpuset of cgroup v1")
	}
	other := filepath.Join(filepath.Dir(dir), "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	want, err1 := readFile(dir + "/cpuset.cpus")
	if got, err2 := readFile(other + "/cpuset.cpus"); err1 != nil || err2 != nil || len(got) < 2 || string(got) != string(want) {
		t.Errorf("cpus %q, want %q: %v, %v", got, want, err1, err2)
	}
	if err := os.Remove(other); err != nil {
		t.Error(err)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	for _, m := range g.Members {
		_ = os.Remove(filepath.Dir(m.Dir))
	}
}

// TestEmptyParent: somebody made the group above and left its cpuset empty.
func TestEmptyParent(t *testing.T) {
	testutil.RequireRoot(t)
	l, err := cgroupfs.Host()
	if err != nil {
		t.Fatal(err)
	}
	for i := range l.V1 {
		if h := &l.V1[i]; h.Has("cpuset") {
			name := fmt.Sprintf("/tare-test-%s-%d", t.Name(), os.Getpid())
			if err := os.Mkdir(h.Mount+name, 0o755); err != nil {
				t.Fatal(err)
			}
			g, err := Create(name+"/child", nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := readFile(g.dir("cpuset") + "/cpuset.cpus"); err != nil || len(b) < 2 {
				t.Errorf("cpus %q, %v", b, err)
			}
			if err := g.Delete(); err != nil {
				t.Error(err)
			}
			for _, m := range g.Members {
				_ = os.Remove(m.Mount + name)
			}
			return
		}
	}
	t.Skip("needs cpuset of cgroup v1")
}
