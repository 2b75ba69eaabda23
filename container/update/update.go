// Package update says what a container's limits and restart policy are after an update.
package update

import (
	"reflect"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
)

// Check refuses values that can never work, and changes of what a
// container has for its whole life.
func Check(u wire.UpdateConfig, now *wire.HostConfig) error {
	if err := fixed(&u.Resources, &now.Resources); err != nil {
		return err
	}
	if err := wire.ValidateRestartPolicy(u.RestartPolicy); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	h := &wire.HostConfig{Resources: u.Resources}
	if h.MemorySwap > 0 && h.Memory == 0 {
		h.Memory = now.Memory
	}
	return spec.CheckLimits(h)
}

// movable are the fields of Resources that an update changes.
var movable = map[string]bool{"BlkioWeight": true, "BlkioWeightDevice": true, "BlkioDeviceReadBps": true, "BlkioDeviceWriteBps": true,
	"BlkioDeviceReadIOps": true, "BlkioDeviceWriteIOps": true, "CPUShares": true, "NanoCPUs": true, "CPUPeriod": true, "CPUQuota": true, "CPURealtimePeriod": true,
	"CPURealtimeRuntime": true, "CpusetCpus": true, "CpusetMems": true, "Memory": true, "MemorySwap": true, "MemoryReservation": true, "PidsLimit": true}

// fixed refuses other values for the other fields. Clients that send all that
// they have read of a container change nothing by it.
func fixed(asked, now *wire.Resources) error {
	a, n := reflect.ValueOf(asked).Elem(), reflect.ValueOf(now).Elem()
	for i := range a.NumField() {
		f, name := a.Field(i), a.Type().Field(i).Name
		if !movable[name] && !unset(f) && !reflect.DeepEqual(f.Interface(), n.Field(i).Interface()) {
			return fault.New(fault.Invalid, "%s cannot be changed of a container that is there: remove it and create it anew", name)
		}
	}
	return nil
}

// unset tells whether a field says nothing; some clients send empty lists.
func unset(f reflect.Value) bool { return f.IsZero() || f.Kind() == reflect.Slice && f.Len() == 0 }

// Apply gives the configuration with what is set in u in place of what was,
// refused in Docker's words where one contradicts the other.
func Apply(now *wire.HostConfig, u wire.UpdateConfig) (*wire.HostConfig, error) {
	conflict := func(text string) error { return fault.New(fault.Conflict, "%s", text) }
	switch {
	case u.NanoCPUs > 0 && now.CPUPeriod > 0:
		return nil, conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
	case u.NanoCPUs > 0 && now.CPUQuota > 0:
		return nil, conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
	case u.CPUPeriod > 0 && now.NanoCPUs > 0:
		return nil, conflict("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
	case u.CPUQuota > 0 && now.NanoCPUs > 0:
		return nil, conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
	case u.Memory != 0 && u.Memory > now.MemorySwap && u.MemorySwap == 0:
		return nil, conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	case now.AutoRemove && !u.RestartPolicy.IsNone():
		return nil, conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	h := *now
	to, from := reflect.ValueOf(&h.Resources).Elem(), reflect.ValueOf(&u.Resources).Elem()
	for name := range movable {
		if v := from.FieldByName(name); !unset(v) {
			to.FieldByName(name).Set(v)
		}
	}
	if u.RestartPolicy.Name != "" {
		h.RestartPolicy = u.RestartPolicy
	}
	return &h, nil
}
