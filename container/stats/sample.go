package stats

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/supervise"
)

// machineMemory is the machine's, in bytes, 0 if it cannot be told.
func machineMemory() uint64 {
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) != nil {
		return 0
	}
	return si.Totalram * uint64(si.Unit)
}

// sample looks at a container now. One that does not run, or has just ended,
// has its names alone.
func (t *Sampler) sample(r record.Record) wire.StatsResponse {
	empty := wire.StatsResponse{ID: r.ID, Name: "/" + r.Name, OSType: "linux"}
	if !r.State.Up() {
		return empty
	}
	dir := filepath.Join(t.bundles, r.ID)
	text, err := supervise.ReadOfInit(dir, "cgroup")
	if err != nil {
		return empty
	}
	s := empty
	group := t.groups.Group(string(text), r.ID)
	s.Read = time.Now().UTC()
	stats := group.Stats()
	s.CPUStats = cpuStats(stats)
	s.CPUStats.SystemUsage, s.CPUStats.OnlineCPUs = machineCPU()
	s.MemoryStats = t.memoryStats(stats, group)
	s.PidsStats = wire.PidsStats{Current: stats.Pids.Current, Limit: stats.Pids.Limit}
	s.BlkioStats = t.blkioStats(stats, group)
	if t.hasInterfaces(r) {
		if text, err := supervise.ReadOfInit(dir, "net/dev"); err == nil {
			s.Networks = interfaces(text)
		}
	}
	return s
}

func cpuStats(s *cgroupfs.Stats) wire.CPUStats {
	u, t := s.CPU.Usage, s.CPU.Throttling
	return wire.CPUStats{
		CPUUsage:       wire.CPUUsage{TotalUsage: u.Total, PercpuUsage: u.Percpu, UsageInKernelmode: u.Kernel, UsageInUsermode: u.User},
		ThrottlingData: wire.ThrottlingData{Periods: t.Periods, ThrottledPeriods: t.Throttled, ThrottledTime: t.Time},
	}
}

// machineCPU is what all processors have done and waited, in nanoseconds, and
// how many there are: the lines cpu and cpuN of /proc/stat, proc_stat(5). The
// guests' times, from the eighth on, are in the others already.
func machineCPU() (total uint64, online uint32) {
	const tick = 1e9 / 100 // USER_HZ
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) < 8 || !strings.HasPrefix(f[0], "cpu") {
			break // they are all at the beginning
		}
		if f[0] != "cpu" {
			online++
			continue
		}
		for _, n := range f[1:8] {
			ticks, _ := strconv.ParseUint(n, 10, 64)
			total += ticks * tick
		}
	}
	return total, online
}

// memoryStats has the machine's memory as the limit of what has none. On v2 the
// failures are the memory.events of oom, and the most that was used is not told,
// as with Docker.
func (t *Sampler) memoryStats(s *cgroupfs.Stats, g cgroupfs.Group) wire.MemoryStats {
	m := wire.MemoryStats{Usage: s.Memory.Usage.Usage, MaxUsage: s.Memory.Usage.Max, Failcnt: s.Memory.Usage.Failures,
		Limit: s.Memory.Usage.Limit, Stats: s.Memory.Raw}
	if t.groups.Unified() {
		m.MaxUsage, m.Failcnt = 0, cgroupfs.Table(g.Dir("memory"), "memory.events")["oom"]
	}
	if t.memory > 0 && m.Limit > t.memory {
		m.Limit = t.memory
	}
	return m
}

// blkioStats has all of Docker's lists on v1, where most of them are of
// schedulers that are no more, and one on v2.
func (t *Sampler) blkioStats(s *cgroupfs.Stats, g cgroupfs.Group) wire.BlkioStats {
	if t.groups.Unified() {
		var bytes []wire.BlkioStatEntry
		for _, e := range blkioEntries(s.IO.Bytes) {
			if e.Op = strings.ToLower(e.Op); e.Op == "read" || e.Op == "write" {
				bytes = append(bytes, e)
			}
		}
		return wire.BlkioStats{IoServiceBytesRecursive: bytes}
	}
	list := func(name string) []wire.BlkioStatEntry {
		return blkioEntries(cgroupfs.Blkio(g.Dir("blkio"), "blkio."+name))
	}
	return wire.BlkioStats{
		IoServiceBytesRecursive: blkioEntries(s.IO.Bytes), IoServicedRecursive: blkioEntries(s.IO.Operations),
		IoQueuedRecursive: list("io_queued_recursive"), IoServiceTimeRecursive: list("io_service_time_recursive"),
		IoWaitTimeRecursive: list("io_wait_time_recursive"), IoMergedRecursive: list("io_merged_recursive"),
		IoTimeRecursive: list("time_recursive"), SectorsRecursive: list("sectors_recursive"),
	}
}

func blkioEntries(list []cgroupfs.IOEntry) []wire.BlkioStatEntry {
	out := make([]wire.BlkioStatEntry, len(list))
	for i, e := range list {
		out[i] = wire.BlkioStatEntry(e)
	}
	return out
}

// hasInterfaces tells whether a container's network namespace is one of those
// that the engine puts interfaces in.
func (t *Sampler) hasInterfaces(r record.Record) bool {
	owner, err := t.store.NetworkOwner(r)
	mode := owner.HostConfig.NetworkMode
	return err == nil && !mode.IsHost() && !mode.IsNone()
}

// interfaces reads /proc/PID/net/dev, proc_pid_net(5), without the loopback.
func interfaces(text []byte) map[string]wire.NetworkStats {
	out := map[string]wire.NetworkStats{}
	for line := range bytes.Lines(text) {
		name, counts, ok := strings.Cut(string(line), ":")
		f := strings.Fields(counts)
		if name = strings.TrimSpace(name); !ok || len(f) < 12 || name == "lo" {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		out[name] = wire.NetworkStats{RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11)}
	}
	return out
}
