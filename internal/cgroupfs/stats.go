package cgroupfs

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tarehq/tare/internal/procfs"
)

// Stats are what the kernel counts for a group, in the JSON form that runc's
// events command made the custom.
type Stats struct {
	CPU               CPUStats                `json:"cpu"`
	CPUSet            CPUSetStats             `json:"cpuset"`
	Memory            MemoryStats             `json:"memory"`
	Pids              PidsStats               `json:"pids"`
	IO                IOStats                 `json:"blkio"`
	Hugetlb           map[string]HugetlbStats `json:"hugetlb"`
	IntelRdt          struct{}                `json:"intel_rdt"`
	NetworkInterfaces []struct{}              `json:"network_interfaces"` // null: interfaces are not the runtime's
}

// CPUStats has times in nanoseconds.
type CPUStats struct {
	Usage struct {
		Total        uint64   `json:"total,omitempty"`
		Percpu       []uint64 `json:"percpu,omitempty"`
		PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
		PercpuUser   []uint64 `json:"percpu_user,omitempty"`
		Kernel       uint64   `json:"kernel"`
		User         uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods   uint64 `json:"periods,omitempty"`
		Throttled uint64 `json:"throttledPeriods,omitempty"`
		Time      uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
	PSI *PSI `json:"psi,omitempty"`
}

// CPUSetStats names the allowed processors and memory nodes.
type CPUSetStats struct {
	CPUs []uint16 `json:"cpus,omitempty"`
	Mems []uint16 `json:"mems,omitempty"`
}

// MemoryStats has sizes in bytes.
type MemoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryUse         `json:"usage"`
	Swap      MemoryUse         `json:"swap"`
	Kernel    MemoryUse         `json:"kernel"`
	KernelTCP MemoryUse         `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
	PSI       *PSI              `json:"psi,omitempty"`
}

// MemoryUse is one kind of memory; no limit is the largest number.
type MemoryUse struct {
	Limit    uint64 `json:"limit"`
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

// PidsStats has 0 for no limit.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// IOStats counts per device and kind of operation.
type IOStats struct {
	Bytes      []IOEntry `json:"ioServiceBytesRecursive,omitempty"`
	Operations []IOEntry `json:"ioServicedRecursive,omitempty"`
	PSI        *PSI      `json:"psi,omitempty"`
}

// IOEntry is one count.
type IOEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// HugetlbStats is the use of pages of one size, in bytes.
type HugetlbStats struct {
	Usage    uint64 `json:"usage,omitempty"`
	Max      uint64 `json:"max,omitempty"`
	Failures uint64 `json:"failcnt"`
}

// PSI is pressure stall information, see the kernel's accounting/psi.
type PSI struct {
	Some Pressure `json:"some"`
	Full Pressure `json:"full"`
}

// Pressure has shares of time in percent and the total in microseconds.
type Pressure struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// ReadV1 reads the files of version 1, of which dir gives the directory by
// controller, "" for one that is not there. What is missing counts nothing.
func ReadV1(dir func(controller string) string) *Stats {
	s := &Stats{Hugetlb: map[string]HugetlbStats{}}
	const tick = 1e9 / 100 // cpuacct.stat counts USER_HZ
	acct := dir("cpuacct")
	u := &s.CPU.Usage
	u.Total = Number(acct, "cpuacct.usage")
	times := Table(acct, "cpuacct.stat")
	u.User, u.Kernel = times["user"]*tick, times["system"]*tick
	for _, f := range Lines(acct, "cpuacct.usage_all") {
		if len(f) == 3 && f[0] != "cpu" {
			user, kernel := parse(f[1]), parse(f[2])
			u.Percpu = append(u.Percpu, user+kernel)
			u.PercpuUser, u.PercpuKernel = append(u.PercpuUser, user), append(u.PercpuKernel, kernel)
		}
	}
	cpu := Table(dir("cpu"), "cpu.stat")
	s.CPU.Throttling.Periods, s.CPU.Throttling.Throttled, s.CPU.Throttling.Time = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_time"]
	set := dir("cpuset")
	s.CPUSet = CPUSetStats{numbers(set, "cpuset.cpus"), numbers(set, "cpuset.mems")}
	memory := dir("memory")
	s.Memory.Raw = Table(memory, "memory.stat")
	s.Memory.Cache = s.Memory.Raw["cache"]
	use := func(kind string) MemoryUse {
		return MemoryUse{Number(memory, kind+".limit_in_bytes"), Number(memory, kind+".usage_in_bytes"),
			Number(memory, kind+".max_usage_in_bytes"), Number(memory, kind+".failcnt")}
	}
	s.Memory.Usage, s.Memory.Swap = use("memory"), use("memory.memsw")
	s.Memory.Kernel, s.Memory.KernelTCP = use("memory.kmem"), use("memory.kmem.tcp")
	s.pids(dir("pids"))
	s.IO.Bytes = Blkio(dir("blkio"), "blkio.throttle.io_service_bytes_recursive")
	s.IO.Operations = Blkio(dir("blkio"), "blkio.throttle.io_serviced_recursive")
	s.hugetlb(dir("hugetlb"), ".limit_in_bytes", func(dir, size string) HugetlbStats {
		return HugetlbStats{Number(dir, size+".usage_in_bytes"), Number(dir, size+".max_usage_in_bytes"), Number(dir, size+".failcnt")}
	})
	return s
}

// ReadV2 reads the files of version 2. What is missing counts nothing.
func ReadV2(dir string) *Stats {
	s := &Stats{Hugetlb: map[string]HugetlbStats{}}
	const micro = 1000
	cpu := Table(dir, "cpu.stat")
	u := &s.CPU.Usage
	u.Total, u.User, u.Kernel = cpu["usage_usec"]*micro, cpu["user_usec"]*micro, cpu["system_usec"]*micro
	s.CPU.Throttling.Periods, s.CPU.Throttling.Throttled, s.CPU.Throttling.Time = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_usec"]*micro
	s.CPU.PSI = pressure(dir, "cpu.pressure")
	s.CPUSet = CPUSetStats{numbers(dir, "cpuset.cpus"), numbers(dir, "cpuset.mems")}
	m := &s.Memory
	m.Raw = Table(dir, "memory.stat")
	m.Cache = m.Raw["file"]
	m.Usage = MemoryUse{Number(dir, "memory.max"), Number(dir, "memory.current"), Number(dir, "memory.peak"), Table(dir, "memory.events")["max"]}
	m.Swap = MemoryUse{Number(dir, "memory.swap.max"), Number(dir, "memory.swap.current"), Number(dir, "memory.swap.peak"), Table(dir, "memory.swap.events")["max"]}
	if m.Swap.Limit != NoLimit && m.Usage.Limit != NoLimit { // as on v1, memory and swap together
		m.Swap.Limit += m.Usage.Limit
	}
	m.Swap.Usage += m.Usage.Usage
	m.PSI = pressure(dir, "memory.pressure")
	s.pids(dir)
	for _, f := range Lines(dir, "io.stat") {
		s.IO.addV2(f)
	}
	s.IO.PSI = pressure(dir, "io.pressure")
	s.hugetlb(dir, ".max", func(dir, size string) HugetlbStats {
		return HugetlbStats{Usage: Number(dir, size+".current"), Failures: Table(dir, size+".events")["max"]}
	})
	return s
}

func (s *Stats) pids(dir string) {
	s.Pids.Current = Number(dir, "pids.current")
	if limit := Number(dir, "pids.max"); limit != NoLimit {
		s.Pids.Limit = limit
	}
}

func (s *Stats) hugetlb(dir, suffix string, read func(dir, size string) HugetlbStats) {
	if dir == "" {
		return
	}
	files, _ := filepath.Glob(dir + "/hugetlb.*" + suffix)
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), suffix)
		if size := strings.TrimPrefix(name, "hugetlb."); !strings.Contains(size, ".") { // not the reserved pages
			s.Hugetlb[size] = read(dir, name)
		}
	}
}

// Blkio reads a file of the controller blkio, version 1, which counts per device
// and kind of operation; without a kind the Op is "".
func Blkio(dir, file string) (out []IOEntry) {
	for _, f := range Lines(dir, file) {
		major, minor, ok := strings.Cut(f[0], ":")
		switch {
		case ok && len(f) == 3:
			out = append(out, IOEntry{parse(major), parse(minor), f[1], parse(f[2])})
		case ok && len(f) == 2:
			out = append(out, IOEntry{parse(major), parse(minor), "", parse(f[1])})
		}
	}
	return out
}

// addV2 reads a device's line of io.stat.
func (s *IOStats) addV2(f []string) {
	major, minor, ok := strings.Cut(f[0], ":")
	if !ok {
		return
	}
	for _, pair := range f[1:] {
		key, n, _ := strings.Cut(pair, "=")
		e := IOEntry{parse(major), parse(minor), map[byte]string{'r': "Read", 'w': "Write", 'd': "Discard"}[pair[0]], parse(n)}
		if strings.HasSuffix(key, "bytes") {
			s.Bytes = append(s.Bytes, e)
		} else if strings.HasSuffix(key, "ios") {
			s.Operations = append(s.Operations, e)
		}
	}
}

func pressure(dir, file string) *PSI {
	all := Lines(dir, file)
	if len(all) == 0 {
		return nil
	}
	p := &PSI{}
	for _, f := range all {
		to := &p.Some
		if f[0] == "full" {
			to = &p.Full
		}
		for _, pair := range f[1:] {
			key, n, _ := strings.Cut(pair, "=")
			share, _ := strconv.ParseFloat(n, 64)
			switch key {
			case "avg10":
				to.Avg10 = share
			case "avg60":
				to.Avg60 = share
			case "avg300":
				to.Avg300 = share
			case "total":
				to.Total = parse(n)
			}
		}
	}
	return p
}

// NoLimit is the kernel's "max" as a number.
const NoLimit = ^uint64(0)

func parse(s string) uint64 {
	if s == "max" {
		return NoLimit
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// Lines reads a file's lines as words; a file that is missing has none.
func Lines(dir, file string) (out [][]string) {
	if dir == "" {
		return nil
	}
	b, err := procfs.Read(dir + "/" + file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// Number reads a file that has one; 0 for one that is missing.
func Number(dir, file string) uint64 {
	if l := Lines(dir, file); len(l) == 1 && len(l[0]) == 1 {
		return parse(l[0][0])
	}
	return 0
}

// Table reads a file of names and numbers.
func Table(dir, file string) map[string]uint64 {
	out := map[string]uint64{}
	for _, f := range Lines(dir, file) {
		if len(f) == 2 {
			out[f[0]] = parse(f[1])
		}
	}
	return out
}

// numbers reads a list such as 0-2,7.
func numbers(dir, file string) (out []uint16) {
	for _, f := range Lines(dir, file) {
		ranges, _ := procfs.Ranges(f[0])
		for _, r := range ranges {
			for n := r[0]; n <= r[1]; n++ {
				out = append(out, uint16(n))
			}
		}
	}
	return out
}
