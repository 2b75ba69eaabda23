package container

import (
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"sort"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
)

// minMemory is the least limit that Docker takes, in bytes.
const minMemory = 6 << 20

// names are at least two characters of [a-zA-Z0-9][a-zA-Z0-9_.-].
var namePattern = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// check refuses, before anything is made, a request that can never work, in
// Docker's words, and by its name what is not supported yet.
func (s *Service) check(req *CreateRequest) error {
	if req.Name != "" && !namePattern.MatchString(req.Name) {
		return fault.New(fault.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", req.Name)
	}
	c, h := req.Config, req.HostConfig
	for _, err := range []error{
		unsupported(c, h, req.NetworkingConfig),
		checkConfig(c),
		checkLimits(h),
		s.checkModes(h),
		s.checkRuntime(h),
		spec.CheckSecurity(h.SecurityOpt),
		checkNetwork(h, req.NetworkingConfig),
		checkPolicy(h),
	} {
		if err != nil {
			return err
		}
	}
	if _, err := wantedPorts(h.PortBindings, c.ExposedPorts, h.PublishAllPorts); err != nil {
		return err
	}
	_, err := spec.Build(spec.Input{ID: "check", Config: c, HostConfig: h, Path: "check"})
	return err
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

func (s *Service) checkModes(h *wire.HostConfig) error {
	switch {
	case !h.IpcMode.Valid():
		return fault.New(fault.Invalid, "invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return fault.New(fault.Invalid, "invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return fault.New(fault.Invalid, "invalid UTS mode: %v", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return fault.New(fault.Invalid, "invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case !h.UsernsMode.Valid():
		return fault.New(fault.NotImplemented, "the user namespace mode %q is not supported yet", h.UsernsMode)
	}
	for _, other := range []string{h.PidMode.Container(), h.NetworkMode.ConnectedContainer()} {
		if other != "" {
			if _, err := s.store.find(other); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) checkRuntime(h *wire.HostConfig) error {
	if h.Runtime == "" {
		h.Runtime = s.cfg.DefaultRuntime
	}
	if _, known := s.cfg.Runtimes[h.Runtime]; !known {
		return fault.New(fault.Invalid, "unknown or invalid runtime name: %s", h.Runtime)
	}
	if h.Init != nil && *h.Init && s.cfg.InitPath == "" {
		return fault.New(fault.NotImplemented, "--init needs the program tare-init beside tared, and it is not there")
	}
	return nil
}

func checkNetwork(h *wire.HostConfig, n *wirenet.NetworkingConfig) error {
	mode := h.NetworkMode
	shared := mode.IsHost() || mode.IsContainer()
	switch {
	case mode.IsContainer() && mode.ConnectedContainer() == "":
		return fault.New(fault.Invalid, "Invalid network mode: invalid container format container:<name|id>")
	case shared && len(h.ExtraHosts)+len(h.DNS) > 0 && mode.IsContainer():
		return fault.New(fault.Invalid, "conflicting options: custom host-to-IP mapping and the network mode")
	case mode.IsContainer() && (len(h.PortBindings) > 0 || h.PublishAllPorts):
		return fault.New(fault.Invalid, "conflicting options: port publishing and the container type network mode")
	case mode != wirenet.NetworkBridge && !mode.IsNone() && !shared:
		return fault.New(fault.NotFound, "network %s not found", mode)
	}
	if n == nil {
		return nil
	}
	for name := range n.EndpointsConfig {
		if name != string(mode) && name != wirenet.NetworkDefault {
			return fault.New(fault.NotImplemented, "connecting to the network %q is not supported yet", name)
		}
	}
	return nil
}

// unsupported refuses by name what a later version will do. Nothing that is
// asked for is silently left out.
func unsupported(c *wire.Config, h *wire.HostConfig, n *wirenet.NetworkingConfig) error {
	asked := map[string]bool{
		"Healthcheck":          c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 && c.Healthcheck.Test[0] != "NONE",
		"Volumes":              len(c.Volumes) > 0,
		"VolumeDriver":         h.VolumeDriver != "",
		"VolumesFrom":          len(h.VolumesFrom) > 0,
		"LogConfig.Config":     len(h.LogConfig.Config) > 0,
		"Cgroup":               h.Cgroup != "",
		"Links":                len(h.Links) > 0,
		"StorageOpt":           len(h.StorageOpt) > 0,
		"Isolation":            !h.Isolation.IsDefault(),
		"IpcMode container:":   h.IpcMode.IsContainer(),
		"IpcMode shareable":    h.IpcMode.IsShareable(),
		"BlkioWeightDevice":    len(h.BlkioWeightDevice) > 0,
		"BlkioDeviceReadBps":   len(h.BlkioDeviceReadBps) > 0,
		"BlkioDeviceWriteBps":  len(h.BlkioDeviceWriteBps) > 0,
		"BlkioDeviceReadIOps":  len(h.BlkioDeviceReadIOps) > 0,
		"BlkioDeviceWriteIOps": len(h.BlkioDeviceWriteIOps) > 0,
		"CpuRealtimePeriod":    h.CPURealtimePeriod != 0,
		"CpuRealtimeRuntime":   h.CPURealtimeRuntime != 0,
		"DeviceRequests":       len(h.DeviceRequests) > 0,
		"CpuCount":             h.CPUCount != 0,
		"CpuPercent":           h.CPUPercent != 0,
		"IOMaximumIOps":        h.IOMaximumIOps != 0,
		"IOMaximumBandwidth":   h.IOMaximumBandwidth != 0,
	}
	if !slices.Contains([]string{"json-file", "none"}, h.LogConfig.Type) {
		return fault.New(fault.NotImplemented, "the log driver %q is not supported yet: use json-file or none", h.LogConfig.Type)
	}
	if n != nil {
		for _, e := range n.EndpointsConfig {
			if e == nil {
				continue
			}
			asked["EndpointsConfig.Links"] = asked["EndpointsConfig.Links"] || len(e.Links) > 0
			asked["EndpointsConfig.Aliases"] = asked["EndpointsConfig.Aliases"] || len(e.Aliases) > 0
			asked["EndpointsConfig.DriverOpts"] = asked["EndpointsConfig.DriverOpts"] || len(e.DriverOpts) > 0
			asked["EndpointsConfig.GwPriority"] = asked["EndpointsConfig.GwPriority"] || e.GwPriority != 0
			if i := e.IPAMConfig; i != nil {
				asked["IPAMConfig.IPv6Address"] = i.IPv6Address != netip.Addr{}
				asked["IPAMConfig.LinkLocalIPs"] = len(i.LinkLocalIPs) > 0
			}
		}
	}
	var names []string
	for name, is := range asked {
		if is {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	sort.Strings(names)
	return fault.New(fault.NotImplemented, "%s is not supported yet", strings.Join(names, ", "))
}
