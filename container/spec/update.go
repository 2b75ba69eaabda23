package spec

import (
	"cmp"
	"reflect"
	"slices"

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
// A disk that is not there is fault.Invalid.
func Change(from, to *wire.Resources) (r *specs.LinuxResources, err error) {
	r = &specs.LinuxResources{CPU: changedCPU(from, to), Memory: changedMemory(from, to)}
	if a, b := pidsLimit(from), pidsLimit(to); a != b {
		r.Pids = &specs.LinuxPids{Limit: &b}
	}
	r.BlockIO, err = changedBlockIO(from, to)
	return r, err
}

func changedBlockIO(from, to *wire.Resources) (*specs.LinuxBlockIO, error) {
	b, err := blockIO(&wire.HostConfig{Resources: *to})
	if err != nil {
		return nil, err
	}
	a, err := blockIO(&wire.HostConfig{Resources: *from})
	if a == nil || err != nil { // a disk that has gone has no limit any more
		a = &specs.LinuxBlockIO{}
	}
	if b == nil {
		b = &specs.LinuxBlockIO{}
	}
	c := &specs.LinuxBlockIO{
		ThrottleReadBpsDevice: changedRates(a.ThrottleReadBpsDevice, b.ThrottleReadBpsDevice), ThrottleWriteBpsDevice: changedRates(a.ThrottleWriteBpsDevice, b.ThrottleWriteBpsDevice),
		ThrottleReadIOPSDevice: changedRates(a.ThrottleReadIOPSDevice, b.ThrottleReadIOPSDevice), ThrottleWriteIOPSDevice: changedRates(a.ThrottleWriteIOPSDevice, b.ThrottleWriteIOPSDevice),
	}
	if from.BlkioWeight != to.BlkioWeight {
		weight := cmp.Or(to.BlkioWeight, defaultWeight)
		c.Weight = &weight
	}
	for _, d := range b.WeightDevice {
		if !slices.ContainsFunc(a.WeightDevice, func(o specs.LinuxWeightDevice) bool { return reflect.DeepEqual(o, d) }) {
			c.WeightDevice = append(c.WeightDevice, d)
		}
	}
	if reflect.DeepEqual(c, &specs.LinuxBlockIO{}) {
		return nil, nil
	}
	return c, nil
}

// changedRates are the rates that are new, and 0, no limit, for the disks that
// have none any more.
func changedRates(from, to []specs.LinuxThrottleDevice) (changed []specs.LinuxThrottleDevice) {
	for _, d := range to {
		if !slices.Contains(from, d) {
			changed = append(changed, d)
		}
	}
	for _, d := range from {
		if !slices.ContainsFunc(to, func(o specs.LinuxThrottleDevice) bool { return o.Major == d.Major && o.Minor == d.Minor }) {
			d.Rate = 0
			changed = append(changed, d)
		}
	}
	return changed
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
		limit := cmp.Or(to.Memory, -1)
		m.Limit = &limit
		if from.MemorySwap > 0 || to.MemorySwap > 0 { // else a kernel that does not count swap need not be asked
			all := cmp.Or(to.MemorySwap, -1)
			m.Swap = &all
		}
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
