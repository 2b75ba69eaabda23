package spec

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// resources are the limits, and the devices with the rules that open them.
func resources(in Input) (*specs.LinuxResources, []specs.LinuxDevice, error) {
	h := in.HostConfig
	r := &specs.LinuxResources{CPU: cpu(h), Memory: memory(h), Unified: nil}
	if h.PidsLimit != nil && *h.PidsLimit != 0 {
		limit := *h.PidsLimit
		r.Pids = &specs.LinuxPids{Limit: &limit}
	}
	var err error
	if r.BlockIO, err = blockIO(h); err != nil {
		return nil, nil, err
	}
	devices, rules, err := devices(h)
	if err != nil {
		return nil, nil, err
	}
	r.Devices = rules
	return r, devices, nil
}

func cpu(h *wire.HostConfig) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: h.CpusetCpus, Mems: h.CpusetMems}
	if h.CPUShares > 0 {
		shares := uint64(h.CPUShares)
		c.Shares = &shares
	}
	period, quota := uint64(h.CPUPeriod), h.CPUQuota
	if h.NanoCPUs > 0 {
		period = 100_000 // µs
		quota = h.NanoCPUs * int64(period) / 1_000_000_000
	}
	if period > 0 {
		c.Period = &period
	}
	if quota != 0 {
		c.Quota = &quota
	}
	if realtime := uint64(h.CPURealtimePeriod); realtime != 0 {
		c.RealtimePeriod = &realtime
	}
	if realtime := h.CPURealtimeRuntime; realtime != 0 {
		c.RealtimeRuntime = &realtime
	}
	if *c == (specs.LinuxCPU{}) {
		return nil
	}
	return c
}

func memory(h *wire.HostConfig) *specs.LinuxMemory {
	m := &specs.LinuxMemory{DisableOOMKiller: nil}
	if h.Memory > 0 {
		m.Limit = &h.Memory
	}
	if h.MemoryReservation > 0 {
		m.Reservation = &h.MemoryReservation
	}
	if h.MemorySwap > 0 { // -1 is what the kernel begins with, if it counts swap at all
		m.Swap = &h.MemorySwap
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness >= 0 {
		s := uint64(*h.MemorySwappiness)
		m.Swappiness = &s
	}
	if h.OomKillDisable != nil && *h.OomKillDisable {
		m.DisableOOMKiller = h.OomKillDisable
	}
	if *m == (specs.LinuxMemory{}) {
		return nil
	}
	return m
}

// devices gives the nodes to make in /dev and the cgroup's rules. A privileged
// container gets every device node of the host.
func devices(h *wire.HostConfig) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	if h.Privileged {
		list, err := privilegedDevices(h.Devices)
		return list, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, err
	}
	for _, d := range defaultDevices {
		rules = append(rules, d.oci())
	}
	var list []specs.LinuxDevice
	for _, m := range h.Devices {
		nodes, err := mapping(m)
		if err != nil {
			return nil, nil, err
		}
		for _, d := range nodes {
			list = append(list, d)
			access := m.CgroupPermissions
			if access == "" {
				access = "rwm"
			}
			rules = append(rules, deviceRule{d.Type, d.Major, d.Minor, access}.oci())
		}
	}
	for _, text := range h.DeviceCgroupRules {
		rule, err := parseDeviceRule(text)
		if err != nil {
			return nil, nil, err
		}
		rules = append(rules, rule.oci())
	}
	return list, rules, nil
}

// privilegedDevices are the host's, and those that were asked for under another
// name.
func privilegedDevices(mappings []wire.DeviceMapping) ([]specs.LinuxDevice, error) {
	list, err := hostDevices()
	if err != nil {
		return nil, err
	}
	for _, m := range mappings {
		if m.PathOnHost == m.PathInContainer {
			continue
		}
		nodes, err := mapping(m)
		if err != nil {
			return nil, err
		}
		for _, node := range nodes {
			list = slices.DeleteFunc(list, func(d specs.LinuxDevice) bool { return d.Path == node.Path })
		}
		list = append(list, nodes...)
	}
	return list, nil
}

func (d deviceRule) oci() specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: d.kind, Access: d.access}
	if d.major >= 0 {
		r.Major = &d.major
	}
	if d.minor >= 0 {
		r.Minor = &d.minor
	}
	return r
}

// parseDeviceRule reads "c 1:3 rwm", with "*" for any number.
func parseDeviceRule(s string) (deviceRule, error) {
	bad := fault.New(fault.Invalid, "invalid device cgroup rule format: '%s'", s)
	fields := strings.Fields(s)
	if len(fields) != 3 || !strings.Contains("abc", fields[0]) || strings.Trim(fields[2], "rwm") != "" {
		return deviceRule{}, bad
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	if !ok {
		return deviceRule{}, bad
	}
	number := func(s string) (int64, error) {
		if s == "*" {
			return -1, nil
		}
		n, err := strconv.ParseUint(s, 10, 32)
		return int64(n), err
	}
	rule := deviceRule{kind: fields[0], access: fields[2]}
	var err1, err2 error
	rule.major, err1 = number(major)
	rule.minor, err2 = number(minor)
	if err1 != nil || err2 != nil {
		return deviceRule{}, bad
	}
	return rule, nil
}

// mapping is one --device: a node, or every node below a directory.
func mapping(m wire.DeviceMapping) ([]specs.LinuxDevice, error) {
	source := m.PathOnHost
	if !path.IsAbs(source) {
		return nil, fault.New(fault.Invalid, "error gathering device information while adding custom device %q: the path must be absolute", source)
	}
	if resolved, err := filepath.EvalSymlinks(source); err == nil {
		source = resolved
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, fault.New(fault.Invalid, "error gathering device information while adding custom device %q: no such file or directory", m.PathOnHost)
	}
	if !info.IsDir() {
		d, err := device(source, m.PathInContainer)
		if err != nil {
			return nil, err
		}
		return []specs.LinuxDevice{d}, nil
	}
	var list []specs.LinuxDevice
	err = filepath.WalkDir(source, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Type()&os.ModeDevice == 0 {
			return err
		}
		rel, _ := filepath.Rel(source, p)
		d, err := device(p, path.Join(m.PathInContainer, rel))
		list = append(list, d)
		return err
	})
	return list, err
}

func device(source, target string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return specs.LinuxDevice{}, fault.New(fault.Invalid, "error gathering device information while adding custom device %q: %w", source, err)
	}
	d := specs.LinuxDevice{Path: target, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))),
		UID: &st.Uid, GID: &st.Gid}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		d.Type = "b"
	case unix.S_IFCHR:
		d.Type = "c"
	default:
		return d, fault.New(fault.Invalid, "error gathering device information while adding custom device %q: not a device node", source)
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode = &mode
	return d, nil
}

// ownDevices in /dev are made by the runtime for each container, or belong to
// file systems that are mounted there.
var ownDevices = []string{"/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console"}

// hostDevices lists every device node below the host's /dev.
func hostDevices() ([]specs.LinuxDevice, error) {
	var list []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(p string, e os.DirEntry, err error) error {
		switch {
		case err != nil && os.IsNotExist(err): // gone meanwhile
			return nil
		case err != nil:
			return err
		case slices.Contains(ownDevices, p) && e.IsDir():
			return filepath.SkipDir
		case slices.Contains(ownDevices, p) || e.Type()&os.ModeDevice == 0:
			return nil
		}
		d, err := device(p, p)
		if err == nil {
			list = append(list, d)
		}
		return nil
	})
	return list, err
}

// rlimits are the user's, and the daemon's own limit of open files where the
// user says nothing: the one a process would inherit is the Go runtime's.
func rlimits(ulimits []*wire.Ulimit, files *specs.POSIXRlimit) ([]specs.POSIXRlimit, error) {
	var list []specs.POSIXRlimit
	if slices.Contains(ulimits, nil) {
		return nil, fault.New(fault.Invalid, "invalid ulimit: null")
	}
	if files != nil && !slices.ContainsFunc(ulimits, func(u *wire.Ulimit) bool { return strings.EqualFold(u.Name, "nofile") }) {
		list = append(list, *files)
	}
	for _, u := range ulimits {
		if _, err := units.ParseUlimit(strings.ToLower(u.Name) + "=0"); err != nil {
			return nil, fault.New(fault.Invalid, "invalid ulimit type: %s", u.Name)
		}
		if u.Soft > u.Hard && u.Hard != -1 {
			return nil, fault.New(fault.Invalid, "ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		list = append(list, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return list, nil
}
