package container

import (
	"context"
	"errors"
	"slices"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/ps"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// Processes are what runs in containers, as the host sees it.
type Processes struct{ containers *Service }

// Top lists a container's processes as ps.List does. No lock is taken, and a
// paused container has processes too.
func (p *Processes) Top(ctx context.Context, nameOrID, arguments string) (wire.TopResponse, error) {
	s := p.containers
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return wire.TopResponse{}, err
	}
	if _, _, err := s.lives.running(r); errors.Is(err, fault.Conflict) {
		return wire.TopResponse{}, err
	}
	text, err := supervise.ReadOfInit(s.bundles.path(r.ID), "cgroup")
	if err != nil {
		return wire.TopResponse{}, notRunning(r)
	}
	pids, err := s.host.groups.Group(string(text), r.ID).Procs()
	if err != nil {
		return wire.TopResponse{}, notRunning(r)
	}
	slices.Sort(pids)
	top, err := ps.List(ctx, arguments, pids)
	if err == nil {
		s.publish(r, events.ActionTop)
	}
	return top, err
}
