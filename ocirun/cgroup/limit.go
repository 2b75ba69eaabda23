package cgroup

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
)

// setting is one value to be written to a file of a group.
type setting struct {
	controller string // v1; "" on v2
	file       string
	value      string
}

// Set writes the limits that r names.
func (g *Group) Set(r *specs.LinuxResources) error {
	if err := refuse(r); err != nil {
		return err
	}
	if g.Unified {
		return g.setV2(r)
	}
	if len(r.Unified) > 0 {
		return fault.New(fault.Invalid, "linux.resources.unified needs cgroup v2, which this machine does not use alone")
	}
	for _, s := range settingsV1(r) {
		dir := g.dir(s.controller)
		if dir == "" {
			return fault.New(fault.Unavailable, "%s cannot be set: the %s control group is not mounted", s.file, s.controller)
		}
		if err := write(dir, s.file, s.value); err != nil {
			return err
		}
	}
	return g.setDevicesV1(r.Devices)
}

// refuse names what is not supported.
func refuse(r *specs.LinuxResources) error {
	no := func(what string) error {
		return fault.New(fault.NotImplemented, "linux.resources.%s is not supported yet", what)
	}
	if m := r.Memory; m != nil && m.Kernel != nil && *m.Kernel != 0 {
		return no("memory.kernel")
	}
	if len(r.Rdma) > 0 {
		return no("rdma")
	}
	return nil
}

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
		addUint(add, "cpu", "cpu.cfs_burst_us", c.Burst)
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
		add("pids", "pids.max", orMax(*p.Limit))
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
	return append(out, blkioV1(r.BlockIO)...)
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
	add := func(file, value string) { out = append(out, setting{"blkio", file, value}) }
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

// enableControllers makes the controllers that r needs available in a v2 group,
// by the subtree_control of each group above it.
func enableControllers(m *Member, r *specs.LinuxResources) error {
	want := neededV2(r)
	if len(want) == 0 {
		return nil
	}
	rel := strings.Split(strings.Trim(strings.TrimPrefix(m.Dir, m.Mount), "/"), "/")
	dir := m.Mount
	for _, name := range rel {
		have, err := readFile(dir + "/cgroup.subtree_control")
		if err != nil {
			return err
		}
		words := strings.Fields(string(have))
		for _, c := range want {
			if !contains(words, c) {
				if err := write(dir, "cgroup.subtree_control", "+"+c); err != nil {
					return err
				}
			}
		}
		dir += "/" + name
	}
	return nil
}

func contains(words []string, w string) bool {
	for _, x := range words {
		if x == w {
			return true
		}
	}
	return false
}

func neededV2(r *specs.LinuxResources) []string {
	if r == nil {
		return nil
	}
	need := map[string]bool{}
	for _, s := range settingsV2(r) {
		name, _, _ := strings.Cut(s.file, ".")
		if name != "cgroup" {
			need[name] = true
		}
	}
	// These two are wanted for what is read later: the cause of a death, the number of processes.
	out := make([]string, 0, len(need))
	for c := range need {
		out = append(out, c)
	}
	sort.Strings(out)
	return out
}

func (g *Group) setV2(r *specs.LinuxResources) error {
	if n := r.Network; n != nil && (n.ClassID != nil && *n.ClassID != 0 || len(n.Priorities) > 0) {
		return fault.New(fault.NotImplemented, "linux.resources.network is not supported on cgroup v2, which has no such controllers")
	}
	for _, s := range settingsV2(r) {
		if err := write(g.Members[0].Dir, s.file, s.value); err != nil {
			return err
		}
	}
	return g.setDevicesV2(r.Devices)
}

// settingsV2 lists the values of cgroup v2 in the order of writing. The unified
// map comes last: it wins.
func settingsV2(r *specs.LinuxResources) []setting {
	var out []setting
	add := func(file, value string) { out = append(out, setting{"", file, value}) }
	if m := r.Memory; m != nil {
		if m.Limit != nil && *m.Limit != 0 {
			add("memory.max", orMax(*m.Limit))
		}
		if s, ok := swapV2(m); ok {
			add("memory.swap.max", s)
		}
		if m.Reservation != nil && *m.Reservation != 0 {
			add("memory.low", orMax(*m.Reservation))
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			add("cpu.weight", strconv.FormatUint(weight(*c.Shares), 10))
		}
		if s := maxV2(c); s != "" {
			add("cpu.max", s)
		}
		if c.Burst != nil {
			add("cpu.max.burst", strconv.FormatUint(*c.Burst, 10))
		}
		if c.Idle != nil {
			add("cpu.idle", strconv.FormatInt(*c.Idle, 10))
		}
		if c.Cpus != "" {
			add("cpuset.cpus", c.Cpus)
		}
		if c.Mems != "" {
			add("cpuset.mems", c.Mems)
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		add("pids.max", orMax(*p.Limit))
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb."+h.Pagesize+".max", strconv.FormatUint(h.Limit, 10))
	}
	out = append(out, ioV2(r.BlockIO)...)
	keys := make([]string, 0, len(r.Unified))
	for k := range r.Unified {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		add(k, r.Unified[k])
	}
	return out
}

// swapV2 turns memory+swap into swap alone.
func swapV2(m *specs.LinuxMemory) (string, bool) {
	switch {
	case m.Swap == nil || *m.Swap == 0:
		return "", false
	case *m.Swap < 0:
		return "max", true
	case m.Limit == nil || *m.Limit <= 0 || *m.Swap < *m.Limit:
		return "", false
	}
	return strconv.FormatInt(*m.Swap-*m.Limit, 10), true
}

// weight maps shares of 2..262144 to a weight of 1..10000.
func weight(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}

func maxV2(c *specs.LinuxCPU) string {
	quota := c.Quota != nil && *c.Quota != 0
	period := c.Period != nil && *c.Period != 0
	if !quota && !period {
		return ""
	}
	s := "max"
	if quota && *c.Quota > 0 {
		s = strconv.FormatInt(*c.Quota, 10)
	}
	if period {
		s += " " + strconv.FormatUint(*c.Period, 10)
	}
	return s
}

func ioV2(b *specs.LinuxBlockIO) []setting {
	if b == nil {
		return nil
	}
	var out []setting
	if b.Weight != nil && *b.Weight != 0 {
		// io.weight has 1..10000 where blkio has 10..1000.
		out = append(out, setting{"", "io.weight", fmt.Sprintf("default %d", 1+(uint64(*b.Weight)-10)*9999/990)})
	}
	throttle := func(key string, devices []specs.LinuxThrottleDevice) {
		for _, d := range devices {
			out = append(out, setting{"", "io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, key, d.Rate)})
		}
	}
	throttle("rbps", b.ThrottleReadBpsDevice)
	throttle("wbps", b.ThrottleWriteBpsDevice)
	throttle("riops", b.ThrottleReadIOPSDevice)
	throttle("wiops", b.ThrottleWriteIOPSDevice)
	return out
}
