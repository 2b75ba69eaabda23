package spec

import (
	"os"
	"runtime"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
)

// minMemory is the least limit that Docker takes, in bytes.
const minMemory = 6 << 20

// CheckLimits refuses limits that no container can have: Docker's rules about those
// that contradict each other, and processors and memory nodes that are not there.
func CheckLimits(h *wire.HostConfig) error {
	if err := checkAmounts(h); err != nil {
		return err
	}
	return checkSets(h)
}

func checkAmounts(h *wire.HostConfig) error {
	bad := func(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
	cpus := runtime.NumCPU()
	switch {
	case h.Memory != 0 && h.Memory < minMemory:
		return bad("Minimum memory limit allowed is 6MB")
	case h.Memory > 0 && h.MemorySwap > 0 && h.MemorySwap < h.Memory:
		return bad("Minimum memoryswap limit should be larger than memory limit, see usage")
	case h.Memory == 0 && h.MemorySwap > 0:
		return bad("You should always set the Memory limit when using Memoryswap limit, see usage")
	case h.MemorySwap < -1: // the kernel would refuse it when the container starts
		return bad("Invalid memory swap limit %d: use -1 for none", h.MemorySwap)
	case h.MemoryReservation < -1:
		return bad("Invalid memory reservation %d: use -1 for none", h.MemoryReservation)
	case h.MemoryReservation > 0 && h.MemoryReservation < minMemory:
		return bad("Minimum memory reservation allowed is 6MB")
	case h.Memory > 0 && h.MemoryReservation > h.Memory:
		return bad("Minimum memory limit can not be less than memory reservation limit, see usage")
	case h.MemorySwappiness != nil && (*h.MemorySwappiness < -1 || *h.MemorySwappiness > 100):
		return bad("Invalid value: %d, valid memory swappiness range is 0-100", *h.MemorySwappiness)
	case h.NanoCPUs > 0 && h.CPUPeriod > 0:
		return bad("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case h.NanoCPUs > 0 && h.CPUQuota > 0:
		return bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case h.NanoCPUs < 0 || h.NanoCPUs > int64(cpus)*1e9:
		return bad("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case h.CPUShares < 0:
		return bad("invalid CPU shares (%d): value must be a positive integer", h.CPUShares)
	case h.CPUPeriod != 0 && (h.CPUPeriod < 1000 || h.CPUPeriod > 1_000_000):
		return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case h.CPUQuota > 0 && h.CPUQuota < 1000:
		return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case h.BlkioWeight != 0 && (h.BlkioWeight < 10 || h.BlkioWeight > 1000):
		return bad("Range of blkio weight is from 10 to 1000")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return bad("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	case h.ShmSize < 0:
		return bad("SHM size can not be less than 0")
	}
	return nil
}

// The processors and memory nodes that the kernel has, as it lists them:
// Documentation/admin-guide/cputopology.rst.
const (
	processors  = "/sys/devices/system/cpu/online"
	memoryNodes = "/sys/devices/system/node/online"
)

// checkSets refuses processors and memory nodes that are not there.
func checkSets(h *wire.HostConfig) error {
	for _, set := range []struct{ list, kind, noun, file string }{
		{h.CpusetCpus, "cpus", "CPUs", processors},
		{h.CpusetMems, "mems", "memory nodes", memoryNodes},
	} {
		wanted, err := procfs.Ranges(set.list)
		if err != nil {
			return fault.New(fault.Invalid, "Invalid value %s for cpuset %s: invalid format: %s", set.list, set.kind, set.list)
		}
		if len(wanted) == 0 {
			continue
		}
		text, err := os.ReadFile(set.file)
		if err != nil {
			continue // one node alone, as a kernel without NUMA has
		}
		there, _ := procfs.Ranges(strings.TrimSpace(string(text)))
		for _, w := range wanted {
			if !slices.ContainsFunc(there, func(t [2]int) bool { return t[0] <= w[0] && w[1] <= t[1] }) {
				return fault.New(fault.Invalid, "Requested %s are not available - requested %s, available: %s", set.noun, set.list, strings.TrimSpace(string(text)))
			}
		}
	}
	return nil
}
