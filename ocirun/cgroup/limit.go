package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// setting is one value to be written to a file of a group.
type setting struct {
	controller string // v1; "" on v2
	file       string
	value      string
}

// Set writes the limits that r names, and the rules for devices.
func (g *Group) Set(r *specs.LinuxResources) error {
	if err := g.limit(r); err != nil {
		return err
	}
	return g.setDevices(r.Devices)
}

// limit writes the limits that r names.
func (g *Group) limit(r *specs.LinuxResources) error {
	if err := g.refuse(r); err != nil {
		return err
	}
	if g.Unified {
		return g.setV2(r)
	}
	if len(r.Unified) > 0 {
		return fault.New(fault.Invalid, "invalid configuration: linux.resources.unified needs cgroup v2, which this machine does not use alone")
	}
	return g.writeAll(settingsV1(r))
}

// writeAll writes settings in order. Two that bound each other, such as a quota
// and its period, may be refused in one order and not in the other: one that is
// refused is tried again after the next.
func (g *Group) writeAll(list []setting) error {
	var waiting error
	for i, s := range list {
		err := g.writeOne(s)
		if waiting != nil {
			if err == nil {
				err = g.writeOne(list[i-1])
			} else {
				err = waiting
			}
			waiting = nil
		} else if err != nil && i+1 < len(list) && boundV1[s.file] && boundV1[list[i+1].file] {
			waiting, err = err, nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) writeOne(s setting) error {
	dir := g.dir(s.controller)
	if dir == "" {
		return fault.New(fault.Unavailable, "%s cannot be set: the %s control group is not mounted", s.file, s.controller)
	}
	if err := write(dir, s.file, s.value); err != nil {
		if strings.HasPrefix(s.file, "cpu.rt_") {
			return fault.New(fault.KindOf(err), "the kernel gives the container no real-time budget, which its parent group needs to have first: %w", err)
		}
		return err
	}
	return reserve(dir, s)
}

// reserve limits huge pages that are reserved as those that are used, where the
// kernel counts them.
func reserve(dir string, s setting) error {
	name, ok := strings.CutPrefix(s.file, "hugetlb.")
	if !ok {
		return nil
	}
	size, what, _ := strings.Cut(name, ".")
	if err := write(dir, "hugetlb."+size+".rsvd."+what, s.value); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// refuse names what is not supported.
func (g *Group) refuse(r *specs.LinuxResources) error {
	no := func(what string) error {
		return fault.New(fault.NotImplemented, "linux.resources.%s is not supported yet", what)
	}
	if m := r.Memory; m != nil && m.Kernel != nil && *m.Kernel != 0 {
		return no("memory.kernel")
	}
	if g.Unified {
		if err := refuseV2(r); err != nil {
			return err
		}
	}
	if m := r.Memory; m != nil && m.Swap != nil && *m.Swap > 0 {
		switch {
		case m.Limit == nil || *m.Limit == 0:
			if g.Unified { // where swap is a limit of its own
				return fault.New(fault.Invalid, "linux.resources.memory: unable to set swap limit without memory limit")
			}
		case *m.Limit > *m.Swap:
			return fault.New(fault.Invalid, "linux.resources.memory: memory+swap limit should be >= memory limit")
		case *m.Limit < 0:
			return fault.New(fault.Invalid, "linux.resources.memory: a limit of memory+swap without one of memory")
		}
	}
	for k, text := range r.Unified {
		if nul(k, text) {
			return fault.New(fault.Invalid, "linux.resources.unified has a NUL byte: %q: %q", k, text)
		}
		if strings.Contains(k, "/") || !strings.Contains(k, ".") {
			return fault.New(fault.Invalid, "linux.resources.unified has %q, which is no file of a controller", k)
		}
	}
	for _, h := range r.HugepageLimits {
		if nul(h.Pagesize) {
			return fault.New(fault.Invalid, "linux.resources.hugepageLimits.pageSize has a NUL byte: %q", h.Pagesize)
		}
	}
	if c := r.CPU; c != nil && nul(c.Cpus, c.Mems) {
		return fault.New(fault.Invalid, "linux.resources.cpu has a NUL byte: cpus %q, mems %q", c.Cpus, c.Mems)
	}
	if c := r.CPU; c != nil && c.Shares != nil && !g.Unified { // which the kernel would change; version 2 has a scale of its own
		switch shares := *c.Shares; {
		case shares == 1:
			return fault.New(fault.Invalid, "the minimum allowed cpu-shares is 2")
		case shares > 262144:
			return fault.New(fault.Invalid, "the maximum allowed cpu-shares is 262144")
		}
	}
	for device, l := range r.Rdma {
		if device == "" || strings.ContainsAny(device, " \t\n\x00") {
			return fault.New(fault.Invalid, "linux.resources.rdma has %q, which is no name of a device", device)
		}
		if l.HcaHandles == nil && l.HcaObjects == nil {
			return fault.New(fault.Invalid, "linux.resources.rdma.%s needs hcaHandles or hcaObjects", device)
		}
	}
	if n := r.Network; n != nil {
		for _, p := range n.Priorities {
			if nul(p.Name) {
				return fault.New(fault.Invalid, "linux.resources.network.priorities has a NUL byte: %q", p.Name)
			}
		}
	}
	return nil
}

// nul tells whether the kernel would read only a part of a word.
func nul(words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.IndexByte(w, 0) >= 0 })
}

// boundV1 are the files of neighbours in settingsV1 that limit each other.
var boundV1 = map[string]bool{"memory.limit_in_bytes": true, "memory.memsw.limit_in_bytes": true,
	"cpu.cfs_period_us": true, "cpu.cfs_quota_us": true, "cpu.rt_period_us": true, "cpu.rt_runtime_us": true}

// settingsV1 lists the values of cgroup v1 in the order of writing.
func settingsV1(r *specs.LinuxResources) []setting {
	var out []setting
	add := func(controller, file, value string) { out = append(out, setting{controller, file, value}) }
	if m := r.Memory; m != nil {
		// The limit comes before memory+swap, which may not be below it.
		addInt(add, "memory", "memory.limit_in_bytes", m.Limit)
		addInt(add, "memory", "memory.memsw.limit_in_bytes", m.Swap)
		addInt(add, "memory", "memory.soft_limit_in_bytes", m.Reservation)
		addInt(add, "memory", "memory.kmem.tcp.limit_in_bytes", m.KernelTCP)
		if m.Swappiness != nil {
			add("memory", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
		}
		if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
			add("memory", "memory.oom_control", "1")
		}
	}
	if c := r.CPU; c != nil {
		addUint(add, "cpu", "cpu.shares", c.Shares)
		addUint(add, "cpu", "cpu.cfs_period_us", c.Period)
		addInt(add, "cpu", "cpu.cfs_quota_us", c.Quota)
		addUint(add, "cpu", "cpu.cfs_burst_us", c.Burst) // not above the quota
		addUint(add, "cpu", "cpu.rt_period_us", c.RealtimePeriod)
		addInt(add, "cpu", "cpu.rt_runtime_us", c.RealtimeRuntime)
		if c.Idle != nil {
			add("cpu", "cpu.idle", strconv.FormatInt(*c.Idle, 10))
		}
		if c.Cpus != "" {
			add("cpuset", "cpuset.cpus", c.Cpus)
		}
		if c.Mems != "" {
			add("cpuset", "cpuset.mems", c.Mems)
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		add("pids", "pids.max", pidsMax(*p.Limit))
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", strconv.FormatUint(h.Limit, 10))
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil && *n.ClassID != 0 {
			add("net_cls", "net_cls.classid", strconv.FormatUint(uint64(*n.ClassID), 10))
		}
		for _, p := range n.Priorities {
			add("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	for _, line := range rdmaLines(r.Rdma) {
		add("rdma", "rdma.max", line)
	}
	return append(out, blkioV1(r.BlockIO)...)
}

// rdmaLines are what rdma.max takes, one for each device, in both versions; what
// a line does not name stays as it is.
func rdmaLines(devices map[string]specs.LinuxRdma) []string {
	out := make([]string, 0, len(devices))
	for device, l := range devices {
		if l.HcaHandles != nil {
			device += " hca_handle=" + strconv.FormatUint(uint64(*l.HcaHandles), 10)
		}
		if l.HcaObjects != nil {
			device += " hca_object=" + strconv.FormatUint(uint64(*l.HcaObjects), 10)
		}
		out = append(out, device)
	}
	sort.Strings(out)
	return out
}

func addInt(add func(string, string, string), controller, file string, v *int64) {
	if v != nil && *v != 0 {
		add(controller, file, strconv.FormatInt(*v, 10))
	}
}

func addUint(add func(string, string, string), controller, file string, v *uint64) {
	if v != nil && *v != 0 {
		add(controller, file, strconv.FormatUint(*v, 10))
	}
}

// pidsMax writes the limit of processes: none below zero, and the first process
// is always let in.
func pidsMax(n int64) string {
	if n == 0 {
		return "1"
	}
	return orMax(n)
}

// orMax writes a limit in the kernel's words; zero and less mean none.
func orMax(n int64) string {
	if n <= 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func blkioV1(b *specs.LinuxBlockIO) []setting {
	if b == nil {
		return nil
	}
	var out []setting
	add := func(file, value string) { out = append(out, setting{controller: "blkio", file: file, value: value}) }
	if b.Weight != nil && *b.Weight != 0 {
		add("blkio.bfq.weight", strconv.Itoa(int(*b.Weight)))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		add("blkio.leaf_weight", strconv.Itoa(int(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			add("blkio.bfq.weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight))
		}
		if d.LeafWeight != nil {
			add("blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.LeafWeight))
		}
	}
	throttle := func(file string, devices []specs.LinuxThrottleDevice) {
		for _, d := range devices {
			add("blkio.throttle."+file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
		}
	}
	throttle("read_bps_device", b.ThrottleReadBpsDevice)
	throttle("write_bps_device", b.ThrottleWriteBpsDevice)
	throttle("read_iops_device", b.ThrottleReadIOPSDevice)
	throttle("write_iops_device", b.ThrottleWriteIOPSDevice)
	return out
}
