package container

import (
	"context"
	"errors"
	"reflect"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/update"
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
	if err := update.Check(u, r.HostConfig); err != nil {
		return nil, err
	}
	asked := &wire.HostConfig{Resources: u.Resources}
	warnings = create.DiscardSwap(asked, s.host.countsSwap)
	u.Resources = asked.Resources
	host, err := update.Apply(r.HostConfig, u)
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
		if s.cfg.Defaults.Get().Runtimes[r.Runtime].Path != "" { // only our own is known to take back what it did
			err = errors.Join(err, back())
		}
		return nil, err
	}
	return back, nil
}
