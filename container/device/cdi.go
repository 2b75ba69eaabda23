// Package device finds the devices that the machine's vendors describe, and adds them
// to the configurations of containers.
package device

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/tarehq/tare/fault"
)

// CDI knows the devices that the machine's vendors describe in files, by the
// Container Device Interface: https://github.com/cncf-tags/container-device-interface.
// The files are read when a container asks for one of them, and nothing is
// kept: they change as drivers are installed.
type CDI struct{ Dirs []string } // without any, there are no such devices

// Devices lists the names of all devices, vendor/class=name.
func (c *CDI) Devices() []string {
	registry, err := c.read()
	if err != nil {
		return nil
	}
	return registry.ListDevices()
}

func (c *CDI) read() (*cdi.Cache, error) {
	if len(c.Dirs) == 0 {
		return nil, errors.New("CDI is switched off in the daemon (cdi-spec-dirs)")
	}
	return cdi.NewCache(cdi.WithSpecDirs(c.Dirs...), cdi.WithAutoRefresh(false))
}

// gpuKinds are the vendors whose devices --gpus means, and what may be asked
// of them. Docker's names.
var gpuKinds = []struct {
	driver, kind string
	capabilities []string
}{
	{"nvidia", "nvidia.com/gpu", []string{"gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display"}},
	{"amd", "amd.com/gpu", []string{"gpu", "amd"}},
}

// Apply adds the devices that were asked for to a specification.
func (c *CDI) Apply(s *specs.Spec, requests []wire.DeviceRequest) error {
	if len(requests) == 0 {
		return nil
	}
	registry, err := c.read()
	if err != nil {
		return injectionFailed(err)
	}
	for _, r := range requests {
		names, err := deviceNames(registry, r)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			continue
		}
		if err := inject(registry, s, names); err != nil {
			return err
		}
	}
	return nil
}

// Inject adds devices by their names.
func (c *CDI) Inject(s *specs.Spec, names []string) error {
	if len(names) == 0 {
		return nil
	}
	registry, err := c.read()
	if err != nil {
		return injectionFailed(err)
	}
	return inject(registry, s, names)
}

func inject(registry *cdi.Cache, s *specs.Spec, names []string) error {
	if _, err := registry.InjectDevices(s, names...); err != nil {
		return injectionFailed(errors.Join(append([]error{err}, damaged(registry)...)...))
	}
	return nil
}

// Device is one that is described.
type Device struct {
	Name        string            // vendor/class=name
	Annotations map[string]string // its own, and those of its file
}

// Described lists the devices by their names.
func (c *CDI) Described() []Device {
	registry, err := c.read()
	if err != nil {
		return nil
	}
	var list []Device
	for _, name := range registry.ListDevices() {
		d := Device{Name: name, Annotations: map[string]string{}}
		if found := registry.GetDevice(name); found != nil {
			maps.Copy(d.Annotations, found.GetSpec().Annotations)
			maps.Copy(d.Annotations, found.Annotations)
		}
		list = append(list, d)
	}
	return list
}

// injectionFailed begins with the words that clients know.
func injectionFailed(err error) error {
	return fault.New(fault.Internal, "CDI device injection failed: %w", err)
}

// damaged tells which files could not be read: a device that is missing may be
// in one of them.
func damaged(registry *cdi.Cache) (list []error) {
	for path, errs := range registry.GetErrors() {
		list = append(list, fmt.Errorf("%s: %w", path, errors.Join(errs...)))
	}
	return list
}

// deviceNames are the devices that a request means.
func deviceNames(registry *cdi.Cache, r wire.DeviceRequest) ([]string, error) {
	if r.Driver == "cdi" {
		switch {
		case r.Count != 0:
			return nil, fault.New(fault.Invalid, "unexpected count in CDI device request")
		case len(r.Options) > 0:
			return nil, fault.New(fault.Invalid, "unexpected options in CDI device request")
		}
		return r.DeviceIDs, nil
	}
	for _, gpu := range gpuKinds {
		described := func(name string) bool { return strings.HasPrefix(name, gpu.kind+"=") }
		if r.Driver != "" && r.Driver != gpu.driver || !anyWithin(r.Capabilities, gpu.capabilities) ||
			!slices.ContainsFunc(registry.ListDevices(), described) {
			continue
		}
		if r.Count != 0 && len(r.DeviceIDs) > 0 {
			return nil, fault.New(fault.Invalid, "cannot set both Count and DeviceIDs on device request")
		}
		if len(r.Options) > 0 {
			return nil, fault.New(fault.Invalid, "the devices of %s take no options (DeviceRequests.Options)", gpu.kind)
		}
		return gpuNames(gpu.kind, r), nil
	}
	return nil, fault.New(fault.Invalid, "could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
}

func gpuNames(kind string, r wire.DeviceRequest) (names []string) {
	switch {
	case r.Count < 0:
		return []string{kind + "=all"}
	case len(r.DeviceIDs) > 0:
		for _, id := range r.DeviceIDs {
			names = append(names, kind+"="+id)
		}
	default:
		for i := range r.Count {
			names = append(names, kind+"="+strconv.Itoa(i))
		}
	}
	return names
}

// anyWithin tells whether all of one of the lists is there.
func anyWithin(lists [][]string, there []string) bool {
	return slices.ContainsFunc(lists, func(list []string) bool {
		return !slices.ContainsFunc(list, func(c string) bool { return !slices.Contains(there, c) })
	})
}
