package container

import (
	"errors"
	"os"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/mounts"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/files"
	"github.com/tarehq/tare/network/publish"
)

// check refuses, before anything is made, a request that can never work, in
// Docker's words, and by its name what is not supported yet.
func (c *creation) check() error {
	s, req := c.containers, c.req
	if req.Name != "" {
		if err := create.CheckName(req.Name); err != nil {
			return err
		}
	}
	config, h := req.Config, req.HostConfig
	for _, err := range []error{
		s.Logbook.Choose(&h.LogConfig),
		req.Refuse(),
		c.checkModes(h),
		c.checkParent(h),
		c.checkRuntime(h),
		s.cfg.IDs.Check(h, s.cfg.Defaults.Get().Runtimes[h.Runtime]),
		s.links.Check(h),
		checkStorage(s.cfg.Snapshots, h),
		spec.CheckSecurity(h.SecurityOpt, s.cfg.Confinement.modules()),
		c.checkNetwork(),
		c.checkJoined(h),
		req.RefusePolicy(),
	} {
		if err != nil {
			return err
		}
	}
	ports, err := create.Ports(h.PortBindings, config.ExposedPorts, h.PublishAllPorts)
	if err != nil {
		return err
	}
	if err := publish.Check(ports); err != nil {
		return err
	}
	wanted, err := c.checkMounts(h)
	if err != nil {
		return err
	}
	if _, err := spec.Build(spec.Input{ID: "check", Config: config, HostConfig: h, Mounts: wanted, Path: "check"}); err != nil {
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
	wanted, err := spec.Wanted(h)
	if err != nil {
		return nil, err
	}
	for _, m := range wanted {
		if !m.Strict {
			continue
		}
		if _, err := os.Stat(m.Source); errors.Is(err, os.ErrNotExist) {
			return nil, mounts.NoSource(m.Source)
		}
	}
	for _, from := range h.VolumesFrom {
		name, _, err := spec.ParseVolumesFrom(from)
		if err != nil {
			return nil, err
		}
		if _, err := c.containers.store.Find(name); err != nil {
			return nil, mounts.ForCreate(err)
		}
	}
	return wanted, nil
}

// CheckSlice refuses a parent that is no slice of systemd's.
func CheckSlice(parent string) error {
	if len(parent) <= len(".slice") || !strings.HasSuffix(parent, ".slice") {
		return fault.New(fault.Invalid, `cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	}
	return nil
}

// checkParent refuses a group that its driver could not make others below.
func (c *creation) checkParent(h *wire.HostConfig) error {
	if !c.containers.cfg.Systemd || h.CgroupParent == "" {
		return nil
	}
	return CheckSlice(h.CgroupParent)
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
			if _, err := c.containers.store.Find(other); err != nil {
				return fault.New(fault.Invalid, "%w", err) // not NotFound, see checkNetwork
			}
		}
	}
	return nil
}

func (c *creation) checkRuntime(h *wire.HostConfig) error {
	s := c.containers
	settings := s.cfg.Defaults.Get()
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
