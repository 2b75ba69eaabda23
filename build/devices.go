package build

import (
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/tarehq/tare/container/device"
	"github.com/tarehq/tare/fault"
)

// DeviceGrants are the devices that a client lets steps have.
type DeviceGrants struct {
	All bool
	// Named are the granted names; one that is not "" is what the name stands for.
	Named map[string]string
}

// What vendors may say of their devices, in BuildKit's words.
const (
	deviceClass     = "org.mobyproject.buildkit.device.class"
	deviceAutoAllow = "org.mobyproject.buildkit.device.autoallow"
)

// AllowsItself tells whether a device needs nobody's grant.
func AllowsItself(d device.Device) bool {
	yes, err := strconv.ParseBool(d.Annotations[deviceAutoAllow])
	return err == nil && yes
}

// devices are the names of those that a step has. It refuses what is not granted.
func (j *Job) devices(op *pb.ExecOp) (names []string, err error) {
	if len(op.CdiDevices) == 0 {
		return nil, nil
	}
	all, grants := j.solver.Devices.Described(), j.options.Devices
	granted := map[string]bool{}
	for name := range grants.Named {
		for _, d := range devicesOf(all, name) {
			granted[d.Name] = true
		}
	}
	var forbidden []string
	for _, wanted := range op.CdiDevices {
		name, renamed := wanted.GetName(), false
		if real := grants.Named[name]; real != "" {
			name, renamed = real, true
		}
		found := devicesOf(all, name)
		if len(found) == 0 && !wanted.GetOptional() {
			return nil, fault.New(fault.Invalid, "required device %q is not registered", wanted.GetName())
		}
		for _, d := range found {
			if !grants.All && !renamed && !granted[d.Name] && !AllowsItself(d) {
				forbidden = append(forbidden, d.Name)
			} else if !slices.Contains(names, d.Name) {
				names = append(names, d.Name)
			}
		}
	}
	switch len(forbidden) {
	case 0:
		return names, nil
	case 1:
		return nil, fault.New(fault.Forbidden, "device %s is requested by the build but not allowed: --allow device=%[1]s grants it", forbidden[0])
	}
	return nil, fault.New(fault.Forbidden, "devices %s are requested by the build but not allowed", strings.Join(forbidden, ", "))
}

// devicesOf finds what a name means: a device, the first one of a kind, all of a kind
// by "kind=*", or those of a class.
func devicesOf(all []device.Device, name string) (found []device.Device) {
	kind, which, _ := strings.Cut(name, "=")
	for _, d := range all {
		if d.Name == name || (which == "*" || which == "") && strings.HasPrefix(d.Name, kind+"=") {
			found = append(found, d)
		}
	}
	if which == "" && len(found) > 1 {
		found = found[:1]
	}
	if len(found) > 0 {
		return found
	}
	for _, d := range all {
		if class := d.Annotations[deviceClass]; class != "" && class == name {
			found = append(found, d)
		}
	}
	return found
}
