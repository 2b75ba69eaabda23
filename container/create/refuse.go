package create

import (
	"regexp"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
)

// names are at least two characters of [a-zA-Z0-9][a-zA-Z0-9_.-].
var namePattern = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckName refuses a name that no container can have.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fault.New(fault.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// Refuse refuses what can never work, in Docker's words.
func (req *Request) Refuse() error {
	if err := checkConfig(req.Config); err != nil {
		return err
	}
	if err := checkForeign(req.HostConfig); err != nil {
		return err
	}
	return spec.CheckLimits(req.HostConfig)
}

// RefusePolicy refuses restart policies and annotations that cannot be.
func (req *Request) RefusePolicy() error {
	if err := checkPolicy(req.HostConfig); err != nil {
		return err
	}
	return checkAnnotations(req.HostConfig.Annotations)
}

func checkConfig(c *wire.Config) error {
	if c.StopSignal != "" {
		if _, err := record.ParseSignal(c.StopSignal); err != nil {
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
