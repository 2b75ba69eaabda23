package container

import (
	"errors"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/files"
)

// minMemory is the least limit that Docker takes, in bytes.
const minMemory = 6 << 20

// names are at least two characters of [a-zA-Z0-9][a-zA-Z0-9_.-].
var namePattern = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// checkName refuses a name that no container can have.
func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fault.New(fault.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// check refuses, before anything is made, a request that can never work, in
// Docker's words, and by its name what is not supported yet.
func (c *creation) check() error {
	s, req := c.containers, c.req
	if req.Name != "" {
		if err := checkName(req.Name); err != nil {
			return err
		}
	}
	config, h := req.Config, req.HostConfig
	for _, err := range []error{
		s.logs.choose(&h.LogConfig),
		checkConfig(config),
		checkForeign(h),
		checkLimits(h),
		checkSets(h),
		c.checkModes(h),
		s.checkParent(h),
		c.checkRuntime(h),
		s.cfg.IDs.check(h, s.cfg.Defaults.get().Runtimes[h.Runtime].Path),
		s.links.check(h),
		checkStorage(s.cfg.Snapshots, h),
		spec.CheckSecurity(h.SecurityOpt),
		c.checkNetwork(),
		checkPolicy(h),
		checkAnnotations(h.Annotations),
	} {
		if err != nil {
			return err
		}
	}
	ports, err := wantedPorts(h.PortBindings, config.ExposedPorts, h.PublishAllPorts)
	if err != nil {
		return err
	}
	if err := network.CheckPorts(ports); err != nil {
		return err
	}
	mounts, err := c.checkMounts(h)
	if err != nil {
		return err
	}
	if _, err := spec.Build(spec.Input{ID: "check", Config: config, HostConfig: h, Mounts: mounts, Path: "check"}); err != nil {
		return err
	}
	if _, err := files.Hosts(files.HostsFile{Extra: h.ExtraHosts, HostGateways: s.cfg.hostGateways()}); err != nil {
		return err
	}
	return nil
}

// checkMounts refuses mounts that cannot be: among others a --mount whose source is
// not there and shall not be made.
func (c *creation) checkMounts(h *wire.HostConfig) ([]spec.Mount, error) {
	mounts, err := spec.Wanted(h)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if !m.Strict {
			continue
		}
		if _, err := os.Stat(m.Source); errors.Is(err, os.ErrNotExist) {
			return nil, noSource(m.Source)
		}
	}
	for _, from := range h.VolumesFrom {
		name, _, err := spec.ParseVolumesFrom(from)
		if err != nil {
			return nil, err
		}
		if _, err := c.containers.store.find(name); err != nil {
			return nil, forCreate(err)
		}
	}
	return mounts, nil
}

func noSource(source string) error {
	return fault.New(fault.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", source)
}

func checkConfig(c *wire.Config) error {
	if c.StopSignal != "" {
		if _, err := parseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	for _, kv := range c.Env {
		if kv == "" || strings.HasPrefix(kv, "=") || strings.ContainsRune(kv, 0) {
			return fault.New(fault.Invalid, "invalid environment variable: %s", kv)
		}
	}
	return checkHealth(c.Healthcheck)
}

// CheckSlice refuses a parent that is no slice of systemd's.
func CheckSlice(parent string) error {
	if len(parent) <= len(".slice") || !strings.HasSuffix(parent, ".slice") {
		return fault.New(fault.Invalid, `cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	}
	return nil
}

// checkParent refuses a group that its driver could not make others below.
func (s *Service) checkParent(h *wire.HostConfig) error {
	if !s.cfg.Systemd || h.CgroupParent == "" {
		return nil
	}
	return CheckSlice(h.CgroupParent)
}

// checkForeign refuses by name what other systems and the engines before
// control groups of version 2 have, and nothing here could do.
func checkForeign(h *wire.HostConfig) error {
	switch {
	case h.IOMaximumIOps != 0 || h.IOMaximumBandwidth != 0:
		return fault.New(fault.Invalid, "invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps (IOMaximumBandwidth, IOMaximumIOps): use BlkioDeviceReadBps and its like")
	case h.CPUCount != 0:
		return fault.New(fault.Invalid, "CpuCount is of Windows: use NanoCpus (--cpus)")
	case h.CPUPercent != 0:
		return fault.New(fault.Invalid, "CpuPercent is of Windows: use NanoCpus (--cpus)")
	case h.Cgroup != "":
		return fault.New(fault.Invalid, "Cgroup %q is not supported: a container has a control group of its own, below CgroupParent", h.Cgroup)
	case !h.Isolation.IsDefault():
		return fault.New(fault.Invalid, "invalid isolation (%s): linux only supports 'default'", h.Isolation)
	}
	return nil
}

func checkAnnotations(annotations map[string]string) error {
	if _, nameless := annotations[""]; nameless {
		return fault.New(fault.Invalid, "invalid Annotations: the empty string is not permitted as an annotation key")
	}
	return nil
}

func checkPolicy(h *wire.HostConfig) error {
	if err := wire.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return fault.New(fault.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

// checkLimits are Docker's rules about limits that contradict each other.
func checkLimits(h *wire.HostConfig) error {
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

func (c *creation) checkModes(h *wire.HostConfig) error {
	switch {
	case !h.IpcMode.Valid(), h.IpcMode == "container:":
		return fault.New(fault.Invalid, "invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return fault.New(fault.Invalid, "invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return fault.New(fault.Invalid, "invalid UTS mode: %v", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return fault.New(fault.Invalid, "invalid cgroup namespace mode: %v", h.CgroupnsMode)
	}
	for _, other := range []string{h.PidMode.Container(), h.IpcMode.Container(), h.NetworkMode.ConnectedContainer()} {
		if other != "" {
			if _, err := c.containers.store.find(other); err != nil {
				return fault.New(fault.Invalid, "%w", err) // not NotFound, see checkNetwork
			}
		}
	}
	return nil
}

func (c *creation) checkRuntime(h *wire.HostConfig) error {
	s := c.containers
	settings := s.cfg.Defaults.get()
	if h.Runtime == "" {
		h.Runtime = settings.DefaultRuntime
	}
	if _, known := settings.Runtimes[h.Runtime]; !known {
		return fault.New(fault.Invalid, "unknown or invalid runtime name: %s", h.Runtime)
	}
	if h.Init != nil && *h.Init && s.cfg.InitPath == "" {
		return fault.New(fault.NotImplemented, "--init needs the program tare-init beside tared, and it is not there")
	}
	return nil
}
