package container

import (
	"context"
	"errors"
	"reflect"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
)

// Update changes a container's limits and its restart policy; what is zero
// stays. Of one that runs, paused too, the control group follows: all of it, or
// when the kernel refuses a part nothing, of the record neither.
func (s *Service) Update(ctx context.Context, nameOrID string, u wire.UpdateConfig) (warnings []string, err error) {
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkUpdate(u, r.HostConfig); err != nil {
		return nil, err
	}
	asked := &wire.HostConfig{Resources: u.Resources}
	warnings = discardSwap(asked, s.host.countsSwap)
	u.Resources = asked.Resources
	host, err := merged(r.HostConfig, u)
	if err != nil {
		return nil, cannotUpdate(r, err)
	}
	back, err := s.limit(context.WithoutCancel(ctx), r, host)
	if err != nil {
		return nil, cannotUpdate(r, err)
	}
	if _, err := s.store.Amend(r.ID, func(c *record.Spec) error { c.HostConfig = host; return nil }); err != nil {
		return nil, cannotUpdate(r, errors.Join(err, back()))
	}
	if u.RestartPolicy.Name != "" { // what a policy goes by is synced only where there is one
		err = s.store.Flush(r.ID)
	}
	s.publish(r, events.ActionUpdate)
	return warnings, err
}

func cannotUpdate(r Record, err error) error {
	return fault.New(fault.KindOf(err), "Cannot update container %s: %w", r.ID, err)
}

// limit gives the control group of a container that runs the limits of to; back
// gives it the old ones.
func (s *Service) limit(ctx context.Context, r Record, to *wire.HostConfig) (back func() error, err error) {
	none := func() error { return nil }
	change, err := spec.Change(&r.HostConfig.Resources, &to.Resources)
	if err != nil || !r.State.Up() || reflect.DeepEqual(change, &specs.LinuxResources{}) {
		return none, err
	}
	keeper, ended, err := s.lives.running(r)
	if errors.Is(err, fault.Conflict) { // it ended just now
		return none, nil
	}
	if err != nil {
		return nil, err
	}
	back = func() error {
		change, err := spec.Change(&to.Resources, &r.HostConfig.Resources)
		return errors.Join(err, keeper.Update(ctx, change))
	}
	err = ofRun(r, ended, keeper.Update(ctx, change))
	if errors.Is(err, fault.Conflict) {
		return none, nil
	}
	if err != nil {
		if s.cfg.Defaults.get().Runtimes[r.Runtime].Path != "" { // only our own is known to take back what it did
			err = errors.Join(err, back())
		}
		return nil, err
	}
	return back, nil
}

// checkUpdate refuses values that can never work, and changes of what a
// container has for its whole life.
func checkUpdate(u wire.UpdateConfig, now *wire.HostConfig) error {
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

// movable are the fields of Resources that Update changes.
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

// merged is the configuration with what is set in u in place of what was,
// refused in Docker's words where one contradicts the other.
func merged(now *wire.HostConfig, u wire.UpdateConfig) (*wire.HostConfig, error) {
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
