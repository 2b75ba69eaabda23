package container

import (
	"errors"
	"os"
	"regexp"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/files"
	"github.com/tarehq/tare/network/publish"
)

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
		spec.CheckLimits(h),
		c.checkModes(h),
		s.checkParent(h),
		c.checkRuntime(h),
		s.cfg.IDs.check(h, s.cfg.Defaults.get().Runtimes[h.Runtime]),
		s.links.check(h),
		checkStorage(s.cfg.Snapshots, h),
		spec.CheckSecurity(h.SecurityOpt, s.cfg.Confinement.modules()),
		c.checkNetwork(),
		c.checkJoined(h),
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
	if err := publish.Check(ports); err != nil {
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
	return healthcheck.Refuse(c.Healthcheck)
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
	case h.IOMaximumBandwidth != 0:
		return fault.New(fault.Invalid, "invalid option: QoS maximum bandwidth configuration is not supported on linux: use BlkioDeviceReadBps and its like")
	case h.IOMaximumIOps != 0:
		return fault.New(fault.Invalid, "invalid option: QoS maximum IOPs configuration is not supported on linux: use BlkioDeviceReadIOps and its like")
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
	for _, other := range []string{h.PidMode.Container(), h.IpcMode.Container()} {
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
