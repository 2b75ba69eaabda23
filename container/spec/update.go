package spec

import (
	"cmp"

	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The kernel's values of what is not limited: cpu.shares, the period of
// cpu.cfs_quota_us in µs, and the weight of the scheduler bfq.
const (
	defaultShares = 1024
	defaultPeriod = 100_000
	defaultWeight = 100
)

// Change is what a running container's control group is told so that limits
// become others; what is the same in both is left out. Memory is told with
// memory+swap, and a quota with its period, as one bounds the other. A limit
// that is not there any more is told as the kernel's default; of processors and
// memory nodes, whose default is not known here, the last choice stays.
func Change(from, to *wire.Resources) *specs.LinuxResources {
	r := &specs.LinuxResources{CPU: changedCPU(from, to), Memory: changedMemory(from, to)}
	if a, b := pidsLimit(from), pidsLimit(to); a != b {
		r.Pids = &specs.LinuxPids{Limit: &b}
	}
	if from.BlkioWeight != to.BlkioWeight {
		weight := cmp.Or(to.BlkioWeight, defaultWeight)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	}
	return r
}

// pidsLimit is -1 for no limit.
func pidsLimit(r *wire.Resources) int64 {
	if r.PidsLimit == nil || *r.PidsLimit <= 0 {
		return -1
	}
	return *r.PidsLimit
}

func changedMemory(from, to *wire.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{}
	if from.Memory != to.Memory || from.MemorySwap != to.MemorySwap {
		limit, all := cmp.Or(to.Memory, -1), cmp.Or(to.MemorySwap, -1)
		m.Limit, m.Swap = &limit, &all
	}
	if from.MemoryReservation != to.MemoryReservation {
		reservation := cmp.Or(to.MemoryReservation, -1)
		m.Reservation = &reservation
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func changedCPU(from, to *wire.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{}
	if from.CPUShares != to.CPUShares {
		shares := uint64(cmp.Or(to.CPUShares, defaultShares))
		c.Shares = &shares
	}
	oldPeriod, oldQuota := bandwidth(from)
	period, quota := bandwidth(to)
	if oldPeriod != period || oldQuota != quota {
		c.Period, c.Quota = &period, &quota
	}
	if from.CPURealtimePeriod != to.CPURealtimePeriod {
		n := uint64(to.CPURealtimePeriod)
		c.RealtimePeriod = &n
	}
	if from.CPURealtimeRuntime != to.CPURealtimeRuntime {
		n := to.CPURealtimeRuntime
		c.RealtimeRuntime = &n
	}
	if from.CpusetCpus != to.CpusetCpus {
		c.Cpus = to.CpusetCpus
	}
	if from.CpusetMems != to.CpusetMems {
		c.Mems = to.CpusetMems
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

// bandwidth gives the period and the quota in it, in µs; -1 for no quota.
func bandwidth(r *wire.Resources) (period uint64, quota int64) {
	if r.NanoCPUs > 0 {
		return defaultPeriod, r.NanoCPUs * defaultPeriod / 1_000_000_000
	}
	return uint64(cmp.Or(r.CPUPeriod, defaultPeriod)), cmp.Or(r.CPUQuota, -1)
}
