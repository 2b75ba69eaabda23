package ocirun

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limit is a field of linux.resources, and what the kernel keeps for it; or what
// is said where the kernel has no such thing.
type limit struct {
	field       string // below linux.resources
	set         func(*specs.LinuxResources)
	file, value string // of the v1 group
	without     string
}

func memory(m specs.LinuxMemory) func(*specs.LinuxResources) {
	return func(r *specs.LinuxResources) { r.Memory = &m }
}

func cpu(c specs.LinuxCPU) func(*specs.LinuxResources) {
	return func(r *specs.LinuxResources) { r.CPU = &c }
}

func disk(b specs.LinuxBlockIO) func(*specs.LinuxResources) {
	return func(r *specs.LinuxResources) { r.BlockIO = &b }
}

// everyLimit has a row for each limit but those of devices.
func everyLimit(major, minor int64) []limit {
	n, u, w, yes, handles := int64(40<<20), uint64(50000), uint16(300), true, uint32(3)
	twice, class, idle, zero, quota := 2*n, uint32(0x100001), int64(1), int64(0), int64(20000)
	swappiness := uint64(30)
	which := specs.LinuxBlockIODevice{Major: major, Minor: minor}
	rate := []specs.LinuxThrottleDevice{{LinuxBlockIODevice: which, Rate: 1 << 20}}
	number := itoa(int(major)) + ":" + itoa(int(minor))
	return []limit{
		{"Memory.Limit", memory(specs.LinuxMemory{Limit: &n}), "memory/memory.limit_in_bytes", itoa(40 << 20), ""},
		{"Memory.Reservation", memory(specs.LinuxMemory{Reservation: &n}), "memory/memory.soft_limit_in_bytes", itoa(40 << 20), ""},
		{"Memory.Swap", memory(specs.LinuxMemory{Limit: &n, Swap: &twice}), "memory/memory.memsw.limit_in_bytes", itoa(80 << 20), ""},
		{"Memory.Kernel", memory(specs.LinuxMemory{Kernel: &n}), "memory/memory.kmem.limit_in_bytes", "9223372036854771712", ""}, // warned of
		{"Memory.KernelTCP", memory(specs.LinuxMemory{KernelTCP: &n}), "memory/memory.kmem.tcp.limit_in_bytes", itoa(40 << 20), ""},
		{"Memory.Swappiness", memory(specs.LinuxMemory{Swappiness: &swappiness}), "memory/memory.swappiness", "30", ""},
		{"Memory.DisableOOMKiller", memory(specs.LinuxMemory{DisableOOMKiller: &yes}), "memory/memory.oom_control", "oom_kill_disable 1", ""},
		{"Memory.UseHierarchy", memory(specs.LinuxMemory{UseHierarchy: &yes}), "memory/memory.use_hierarchy", "1", ""},
		{"CPU.Shares", cpu(specs.LinuxCPU{Shares: &u}), "cpu/cpu.shares", "50000", ""},
		{"CPU.Quota", cpu(specs.LinuxCPU{Quota: &quota}), "cpu/cpu.cfs_quota_us", "20000", ""},
		{"CPU.Period", cpu(specs.LinuxCPU{Period: &u}), "cpu/cpu.cfs_period_us", "50000", ""},
		{"CPU.Burst", cpu(specs.LinuxCPU{Quota: &quota, Burst: ptr(uint64(1000))}), "cpu/cpu.cfs_burst_us", "1000", ""},
		{"CPU.RealtimeRuntime", cpu(specs.LinuxCPU{RealtimeRuntime: &quota}), "cpu/cpu.rt_runtime_us", "20000", "no real-time budget"},
		{"CPU.RealtimePeriod", cpu(specs.LinuxCPU{RealtimePeriod: &u}), "cpu/cpu.rt_period_us", "50000", "no real-time budget"},
		{"CPU.Cpus", cpu(specs.LinuxCPU{Cpus: "0"}), "cpuset/cpuset.cpus", "0", ""},
		{"CPU.Mems", cpu(specs.LinuxCPU{Mems: "0"}), "cpuset/cpuset.mems", "0", ""},
		{"CPU.Mems of none", cpu(specs.LinuxCPU{Mems: "63"}), "cpuset/cpuset.mems", "63", "cpuset.mems"},
		{"CPU.Idle", cpu(specs.LinuxCPU{Idle: &idle}), "cpu/cpu.idle", "1", ""},
		{"Pids.Limit", func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: &quota} }, "pids/pids.max", "20000", ""},
		{"Pids.Limit of none", func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: &zero} }, "pids/pids.max", "1", ""},
		{"BlockIO.Weight", disk(specs.LinuxBlockIO{Weight: &w}), "blkio/blkio.bfq.weight", "300", "blkio.bfq.weight"},
		{"BlockIO.LeafWeight", disk(specs.LinuxBlockIO{LeafWeight: &w}), "blkio/blkio.leaf_weight", "300", "blkio.leaf_weight"},
		{"BlockIO.WeightDevice", disk(specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: which, Weight: &w}}}),
			"blkio/blkio.bfq.weight_device", number + " 300", "blkio.bfq.weight_device"},
		{"BlockIO.WeightDevice.LeafWeight", disk(specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: which, LeafWeight: &w}}}),
			"blkio/blkio.leaf_weight_device", number + " 300", "blkio.leaf_weight_device"},
		{"BlockIO.ThrottleReadBpsDevice", disk(specs.LinuxBlockIO{ThrottleReadBpsDevice: rate}), "blkio/blkio.throttle.read_bps_device", number + " 1048576", ""},
		{"BlockIO.ThrottleWriteBpsDevice", disk(specs.LinuxBlockIO{ThrottleWriteBpsDevice: rate}), "blkio/blkio.throttle.write_bps_device", number + " 1048576", ""},
		{"BlockIO.ThrottleReadIOPSDevice", disk(specs.LinuxBlockIO{ThrottleReadIOPSDevice: rate}), "blkio/blkio.throttle.read_iops_device", number + " 1048576", ""},
		{"BlockIO.ThrottleWriteIOPSDevice", disk(specs.LinuxBlockIO{ThrottleWriteIOPSDevice: rate}), "blkio/blkio.throttle.write_iops_device", number + " 1048576", ""},
		{"HugepageLimits", func(r *specs.LinuxResources) {
			r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}
		}, "hugetlb/hugetlb.2MB.limit_in_bytes", itoa(4 << 20), "the hugetlb control group is not mounted"},
		{"Network.ClassID", func(r *specs.LinuxResources) { r.Network = &specs.LinuxNetwork{ClassID: &class} }, "net_cls/net_cls.classid", itoa(0x100001), "the net_cls control group is not mounted"},
		{"Network.Priorities", func(r *specs.LinuxResources) {
			r.Network = &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 5}}}
		}, "net_prio/net_prio.ifpriomap", "lo 5", "the net_prio control group is not mounted"},
		{"Rdma.HcaHandles, HcaObjects", func(r *specs.LinuxResources) {
			r.Rdma = map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: &handles, HcaObjects: &handles}}
		}, "rdma/rdma.max", "mlx5_1 hca_handle=3 hca_object=3", "the rdma control group is not mounted"},
		{"Unified", func(r *specs.LinuxResources) { r.Unified = map[string]string{"memory.high": "5"} }, "", "", "unified needs cgroup v2"},
	}
}

func ptr[T any](v T) *T { return &v }

// TestEveryLimit reads each limit where the kernel keeps it, or what is said
// where this kernel has no place for it.
func TestEveryLimit(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes"); err != nil {
		t.Skip("needs cgroup v1; package cgroup has the other")
	}
	dir, base := bundle(t, "true")
	clean(t)
	var st unix.Stat_t
	if err := unix.Stat("/dev/loop0", &st); err != nil {
		if err := unix.Stat("/dev/vda", &st); err != nil {
			t.Skip("needs a disk")
		}
	}
	for _, l := range everyLimit(int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))) {
		s, linux, r := *base, *base.Linux, *base.Linux.Resources
		l.set(&r)
		linux.Resources, s.Linux = &r, &linux
		c, err := Create(context.Background(), Options{Bundle: dir, Spec: &s, ID: containerID(t)})
		if err != nil {
			if l.without == "" || !strings.Contains(err.Error(), l.without) {
				t.Errorf("%s: %v", l.field, err)
			}
			continue
		}
		controller, file, _ := strings.Cut(l.file, "/")
		got, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", controller, containerID(t), file))
		if err != nil || !strings.Contains("\n"+string(got), "\n"+l.value+"\n") {
			t.Errorf("%s: got %q, %v, not %q", l.field, got, err, l.value)
		}
		stop(t, c)
	}
}
