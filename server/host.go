package server

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/cgroupfs"
)

// host is what does not change about the machine while the daemon runs.
type host struct {
	name, kernel, arch string
	osName, osVersion  string
	memory             int64 // bytes
	cgroupVersion      int
	limits             limits
	security           []string
}

// limits tells which resources the kernel can limit.
type limits struct {
	memory, swap, oomKill     bool
	cpuShares, cpuQuota, cpus bool
	pids                      bool
}

func probeHost() host {
	h := host{cgroupVersion: 1}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		h.name = unix.ByteSliceToString(uts.Nodename[:])
		h.kernel = unix.ByteSliceToString(uts.Release[:])
		h.arch = unix.ByteSliceToString(uts.Machine[:])
	}
	h.osName, h.osVersion = osRelease()
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err == nil {
		h.memory = int64(si.Totalram) * int64(si.Unit)
	}
	const root = "/sys/fs/cgroup"
	groups, err := cgroupfs.Host()
	if err == nil && groups.Unified() {
		h.cgroupVersion = 2
		h.limits = unifiedLimits(root)
	} else {
		h.limits = legacyLimits(root)
	}
	h.limits.swap = h.limits.memory && err == nil && groups.CountsSwap()
	if status, err := os.ReadFile("/proc/self/status"); err == nil && bytes.Contains(status, []byte("\nSeccomp:")) {
		h.security = append(h.security, "name=seccomp")
	}
	if exists("/proc/self/ns/cgroup") {
		h.security = append(h.security, "name=cgroupns")
	}
	return h
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// legacyLimits looks at the version 1 hierarchies, cgroups(7).
func legacyLimits(root string) limits {
	has := func(controller, file string) bool { return exists(filepath.Join(root, controller, file)) }
	return limits{
		memory:    has("memory", "memory.limit_in_bytes"),
		oomKill:   has("memory", "memory.oom_control"),
		cpuShares: has("cpu", "cpu.shares"),
		cpuQuota:  has("cpu", "cpu.cfs_quota_us"),
		cpus:      has("cpuset", "cpuset.cpus"),
		pids:      has("pids", ""),
	}
}

// unifiedLimits looks at the controllers of version 2, cgroups(7). The
// OOM killer cannot be turned off there.
func unifiedLimits(root string) limits {
	text, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	on := map[string]bool{}
	for name := range strings.FieldsSeq(string(text)) {
		on[name] = true
	}
	return limits{
		memory:    on["memory"],
		cpuShares: on["cpu"], cpuQuota: on["cpu"], cpus: on["cpuset"], pids: on["pids"],
	}
}

// osRelease reads the distribution's name and version, os-release(5).
func osRelease() (name, version string) {
	name = "Linux"
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), "=")
			if unquoted, err := strconv.Unquote(value); err == nil {
				value = unquoted
			}
			value = strings.Trim(value, "'")
			switch key {
			case "PRETTY_NAME":
				name = value
			case "VERSION_ID":
				version = value
			}
		}
		break
	}
	return name, version
}

// fill sets what the machine determines.
func (h host) fill(info *system.Info) {
	info.Name, info.KernelVersion, info.Architecture = h.name, h.kernel, h.arch
	if name, err := os.Hostname(); err == nil {
		info.Name = name
	}
	info.OperatingSystem, info.OSVersion, info.OSType = h.osName, h.osVersion, "linux"
	info.NCPU = runtime.NumCPU()
	info.MemTotal = h.memory
	info.CgroupVersion = strconv.Itoa(h.cgroupVersion)
	info.SecurityOptions = append([]string{}, h.security...)
	info.NFd = openFiles()

	l := h.limits
	info.MemoryLimit, info.SwapLimit, info.OomKillDisable = l.memory, l.swap, l.oomKill
	info.CPUShares, info.CPUCfsQuota, info.CPUCfsPeriod, info.CPUSet = l.cpuShares, l.cpuQuota, l.cpuQuota, l.cpus
	info.PidsLimit = l.pids
	forwarding, _ := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	info.IPv4Forwarding = strings.TrimSpace(string(forwarding)) == "1"
	info.Warnings = h.warnings(info.IPv4Forwarding)
}

// warnings has a line, in the words that Docker's clients print, for each
// thing that a user may ask for and not get.
func (h host) warnings(forwarding bool) []string {
	l := h.limits
	var lines []string
	for _, lack := range []struct {
		have bool
		line string
	}{
		{l.memory, "WARNING: No memory limit support"},
		{l.swap, "WARNING: No swap limit support"},
		{l.oomKill || h.cgroupVersion == 2, "WARNING: No oom kill disable support"},
		{l.cpuQuota, "WARNING: No cpu cfs quota support"},
		{l.cpuQuota, "WARNING: No cpu cfs period support"},
		{l.cpuShares, "WARNING: No cpu shares support"},
		{l.cpus, "WARNING: No cpuset support"},
		{l.pids, "WARNING: No pids limit support"},
		{forwarding, "WARNING: IPv4 forwarding is disabled"},
	} {
		if !lack.have {
			lines = append(lines, lack.line)
		}
	}
	return lines
}

// openFiles counts the daemon's descriptors, -1 if it cannot be told.
func openFiles() int {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return -1
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names) - 1
}
