package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
)

// Remove takes a network back that no container is on. The words are Docker's:
// a network in use and one that comes with the daemon are Forbidden.
func (s *Service) Remove(ctx context.Context, nameOrID string) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.tasks.Done()
	l, err := s.depart(nameOrID)
	if err != nil {
		return err
	}
	return s.removeLan(ctx, l, events.ActionDestroy)
}

// depart marks a network that is to be removed: nobody joins it from then on.
func (s *Service) depart(nameOrID string) (*lan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.findLocked(nameOrID)
	if err != nil {
		return nil, err
	}
	if predefined(l.Name) {
		return nil, fault.New(fault.Forbidden, "%s is a pre-defined network and cannot be removed", l.Name)
	}
	if users := s.usersLocked(l); len(users) > 0 {
		return nil, fault.New(fault.Forbidden, "error while removing network: network %s has active endpoints (%s)", l.Name, strings.Join(users, ", "))
	}
	if l.joining > 0 {
		return nil, fault.New(fault.Forbidden, "error while removing network: network %s has active endpoints (a container is being attached)", l.Name)
	}
	for _, other := range s.lans {
		if l.ConfigOnly && other.ConfigFrom.Network == l.Name {
			return nil, fault.New(fault.Forbidden, "error while removing network: configuration network %q is in use", l.Name)
		}
	}
	l.state = lanLeaving
	return l, nil
}

// usersLocked tells who is on a network, in Docker's form.
func (s *Service) usersLocked(l *lan) (users []string) {
	for _, b := range s.sandboxes {
		if e := b.On(l.ID); e != nil {
			users = append(users, fmt.Sprintf("name:%q id:%q", b.Name, e.ID[:min(12, len(e.ID))]))
		}
	}
	slices.Sort(users)
	return users
}

// removeLan removes a network that has departed. Off the disk first: what is
// left of it after a crash, Restore removes.
func (s *Service) removeLan(ctx context.Context, l *lan, action events.Action) error {
	ctx = context.WithoutCancel(ctx)
	if err := s.findAgain(ctx, l); err != nil {
		s.stay(l)
		return fault.New(fault.KindOf(err), "error while removing network: %w", err)
	}
	if d := l.driver(); d != nil {
		// A driver may refuse, and there is no reconciling with it.
		if err := d.Remove(ctx, l.Network); err != nil {
			s.stay(l)
			return fault.New(fault.KindOf(err), "error while removing network: %w", err)
		}
	}
	if err := s.store.drop(l.ID); err != nil {
		s.stay(l)
		return fmt.Errorf("error while removing network: %w", err)
	}
	err := s.takeDown(ctx, l)
	l.dropSubnets()
	s.strike(l)
	s.publishEvent(l, action)
	return err
}

// findAgain looks for the driver of a network that was not there when the daemon
// started.
func (s *Service) findAgain(ctx context.Context, l *lan) error {
	if l.driver() != nil || l.Driver == networkBridge || l.ConfigOnly {
		return nil
	}
	d, err := s.findDriver(ctx, l.Driver)
	l.setDriver(d)
	return err
}

// stay undoes depart.
func (s *Service) stay(l *lan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.state = lanUp
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
	s.setBridge(l, nil)
	err := s.renewRules()
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
	for _, l := range s.all() {
		if ctx.Err() != nil {
			return names, ctx.Err()
		}
		if predefined(l.Name) || l.ConfigOnly || !wants(l.describe()) {
			continue
		}
		l, err := s.depart(l.ID)
		if err == nil {
			err = s.removeLan(ctx, l, events.ActionDestroy)
		}
		if err == nil {
			names = append(names, l.Name)
		}
	}
	return names, nil
}
