package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/firewalld"
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
	if err := s.drivers.findAgain(ctx, l); err != nil {
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
	err := s.takeDown(ctx, l)
	l.dropSubnets()
	s.lans.strike(l)
	s.publishEvent(l, action)
	return err
}

// takeDown takes back what bringUp made.
func (s *Service) takeDown(ctx context.Context, l *lan) error {
	s.endPool(l, true)
	s.remover.settle(l.ID) // its interfaces, and with them its addresses
	if d := l.driver(); d != nil {
		if l.state == lanLeaving {
			return nil // it has been asked
		}
		return d.Remove(ctx, l.Network)
	}
	s.lans.setBridge(l, nil)
	err := s.renewRules()
	if l.Bridge != "" {
		err = errors.Join(err, firewalld.Leave(l.Bridge))
	}
	switch {
	case l.Bridge == "":
	case l.Foreign:
		err = errors.Join(err, firewall.LeaveGuard(l.Bridge))
	default:
		err = errors.Join(err, lowerBridge(l.Bridge))
	}
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
