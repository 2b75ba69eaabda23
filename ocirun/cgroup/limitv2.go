package cgroup

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// refuseV2 names what cgroup v2 has no file for.
func refuseV2(r *specs.LinuxResources) error {
	asked := ""
	ask := func(what string, on bool) {
		if on {
			asked = what
		}
	}
	if m := r.Memory; m != nil {
		ask("memory.swappiness", m.Swappiness != nil && *m.Swappiness != 0)
		ask("memory.kernelTCP", m.KernelTCP != nil && *m.KernelTCP > 0)
		ask("memory.disableOOMKiller", m.DisableOOMKiller != nil && *m.DisableOOMKiller)
	}
	if c := r.CPU; c != nil {
		ask("cpu.realtimeRuntime", c.RealtimeRuntime != nil && *c.RealtimeRuntime > 0)
		ask("cpu.realtimePeriod", c.RealtimePeriod != nil && *c.RealtimePeriod > 0)
	}
	if b := r.BlockIO; b != nil {
		ask("blockIO.leafWeight", b.LeafWeight != nil && *b.LeafWeight != 0)
		for _, d := range b.WeightDevice {
			ask("blockIO.weightDevice.leafWeight", d.LeafWeight != nil && *d.LeafWeight != 0)
		}
	}
	if n := r.Network; n != nil {
		ask("network.classID", n.ClassID != nil && *n.ClassID != 0)
		ask("network.priorities", len(n.Priorities) > 0)
	}
	if asked != "" {
		return fault.New(fault.NotImplemented, "linux.resources.%s is not supported on cgroup v2, which has no such setting", asked)
	}
	return nil
}

// enableControllers makes the machine's controllers available in a v2 group, by
// the subtree_control of each group above it: statistics need them as limits
// do. Only one that r needs must succeed.
func enableControllers(m *Member, r *specs.LinuxResources) error {
	need := neededV2(r)
	all, err := readFile(m.Mount + "/cgroup.controllers")
	if err != nil {
		return err
	}
	dir, there := m.Mount, strings.Fields(string(all))
	for _, name := range strings.Split(strings.Trim(strings.TrimPrefix(m.Dir, m.Mount), "/"), "/") {
		if there, err = enable(dir, there, need); err != nil {
			return err
		}
		dir += "/" + name
	}
	return nil
}

// enable makes the controllers that a group has available in its children, and
// gives those that then are: no others can be asked for further down.
func enable(dir string, there, need []string) ([]string, error) {
	have, err := readFile(dir + "/cgroup.subtree_control")
	if err != nil {
		return nil, err
	}
	on := strings.Fields(string(have))
	var missing []string
	for _, c := range there {
		if !contains(on, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return on, nil
	}
	err = write(dir, "cgroup.subtree_control", "+"+strings.Join(missing, " +"))
	if err == nil {
		return append(on, missing...), nil
	}
	for _, c := range missing { // all or none at once, so one by one
		if len(missing) > 1 {
			err = write(dir, "cgroup.subtree_control", "+"+c)
		}
		if err == nil {
			on = append(on, c)
		} else if contains(need, c) {
			return nil, err
		}
	}
	return on, nil
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
	out := make([]string, 0, len(need))
	for c := range need {
		out = append(out, c)
	}
	sort.Strings(out)
	return out
}

func (g *Group) setV2(r *specs.LinuxResources) error {
	dir := g.Members[0].Dir
	for _, s := range g.settings(r) {
		err := write(dir, s.file, s.value)
		if err == nil {
			err = reserve(dir, s)
		}
		if errors.Is(err, unix.ENOENT) && r.Unified[s.file] != "" {
			controller, _, _ := strings.Cut(s.file, ".")
			return fault.New(fault.Invalid, "unified resource %q can't be set: controller %q not available", s.file, controller)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settings are those of the version that this machine has. The weight of block
// devices goes to BFQ where that is there, as runc's library has it, in its units.
func (g *Group) settings(r *specs.LinuxResources) []setting {
	if !g.Unified {
		return settingsV1(r)
	}
	list := settingsV2(r)
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 && unix.Access(g.Members[0].Dir+"/io.bfq.weight", unix.F_OK) == nil {
		i := slices.IndexFunc(list, func(s setting) bool { return s.file == "io.weight" })
		list[i] = setting{file: "io.bfq.weight", value: strconv.Itoa(int(*b.Weight))}
	}
	return list
}

// settingsV2 lists the values of cgroup v2 in the order of writing. The unified
// map comes last: it wins.
func settingsV2(r *specs.LinuxResources) []setting {
	var out []setting
	add := func(file, value string) { out = append(out, setting{file: file, value: value}) }
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
		add("pids.max", pidsMax(*p.Limit))
	}
	for _, h := range r.HugepageLimits {
		add("hugetlb."+h.Pagesize+".max", strconv.FormatUint(h.Limit, 10))
	}
	for _, line := range rdmaLines(r.Rdma) {
		add("rdma.max", line)
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
	case m.Limit == nil || *m.Limit <= 0:
		return "", false
	}
	return strconv.FormatInt(*m.Swap-*m.Limit, 10), true
}

// weight maps shares of 2..262144 to a weight of 1..10000, and the default 1024
// to the default 100: a curve through these three points, which all runtimes use.
func weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
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
		out = append(out, setting{file: "io.weight", value: fmt.Sprintf("default %d", 1+(uint64(*b.Weight)-10)*9999/990)})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			out = append(out, setting{file: "io.bfq.weight", value: fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight)})
		}
	}
	throttle := func(key string, devices []specs.LinuxThrottleDevice) {
		for _, d := range devices {
			rate := "max" // what v1 calls 0
			if d.Rate > 0 {
				rate = strconv.FormatUint(d.Rate, 10)
			}
			out = append(out, setting{file: "io.max", value: fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, key, rate)})
		}
	}
	throttle("rbps", b.ThrottleReadBpsDevice)
	throttle("wbps", b.ThrottleWriteBpsDevice)
	throttle("riops", b.ThrottleReadIOPSDevice)
	throttle("wiops", b.ThrottleWriteIOPSDevice)
	return out
}
