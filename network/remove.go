package network

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
)

// Remove takes a network back that no container is on. The words are Docker's:
// a network in use and one that comes with the daemon are Forbidden.
func (s *Service) Remove(ctx context.Context, nameOrID string) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.tasks.Done()
	l, err := s.lans.depart(nameOrID)
	if err != nil {
		return err
	}
	return s.removeLan(ctx, l, events.ActionDestroy)
}

// removeLan removes a network that has departed. Off the disk first: what is
// left of it after a crash, Restore removes.
func (s *Service) removeLan(ctx context.Context, l *lan, action events.Action) error {
	ctx = context.WithoutCancel(ctx)
	if err := s.raiser.drivers.findAgain(ctx, l); err != nil {
		s.lans.setUp(l)
		return fault.New(fault.KindOf(err), "error while removing network: %w", err)
	}
	if d := l.driver(); d != nil {
		// A driver may refuse, and there is no reconciling with it.
		if err := d.Remove(ctx, l.Network); err != nil {
			s.lans.setUp(l)
			return fault.New(fault.KindOf(err), "error while removing network: %w", err)
		}
	}
	if err := s.store.drop(l.ID); err != nil {
		s.lans.setUp(l)
		return fmt.Errorf("error while removing network: %w", err)
	}
	err := s.raiser.takeDown(ctx, l)
	l.dropSubnets()
	s.lans.strike(l)
	s.publishEvent(l, action)
	return err
}

// Prune removes the networks that no container is on and that wants chooses,
// and gives their names. One that cannot be removed is passed over.
func (s *Service) Prune(ctx context.Context, wants func(wire.Network) bool) ([]string, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.tasks.Done()
	var names []string
	for _, l := range s.lans.all() {
		if ctx.Err() != nil {
			return names, ctx.Err()
		}
		if predefined(l.Name) || l.ConfigOnly || !wants(l.describe()) {
			continue
		}
		l, err := s.lans.depart(l.ID)
		if err == nil {
			err = s.removeLan(ctx, l, events.ActionDestroy)
		}
		if err == nil {
			names = append(names, l.Name)
		}
	}
	return names, nil
}
