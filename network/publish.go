package network

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
)

// taken lists the ports of all sandboxes.
func (s *Service) taken() []Published {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Published
	for _, b := range s.sandboxes {
		list = append(list, b.Ports...)
	}
	return list
}

// publish enters the sandbox and adds what belongs to it to the tables. Tables
// that somebody changed or flushed are made anew.
//
// What waited until now has its pins there.
func (s *Service) publish(b Sandbox, bx *box) error {
	s.rules.Lock()
	defer s.rules.Unlock()
	s.mu.Lock()
	stale := s.enterLocked(b)
	if bx.waiting != nil {
		s.unwaitLocked(bx.waiting)
	}
	s.mu.Unlock()
	var err error
	var add []firewall.Element
	if bx.waiting == nil {
		add = s.elements(b)
	} else if len(b.Ports) > 0 || len(b.Endpoints) > 1 {
		_, add = firewall.Diff(s.elements(*bx.waiting), s.elements(b))
	}
	bx.waiting = nil
	switch {
	case stale:
	case len(b.Ports) > 0: // which may still be another's
		err = s.settleLocked(add)
	case len(add) == 0:
	default:
		err = s.firewall.Change(nil, add)
	}
	if stale || err != nil {
		err = s.firewall.Replace(s.wanted())
	}
	if err != nil {
		s.forget(b)
		return err
	}
	if publishesUDP(b.Ports) {
		firewall.ForgetLocalFlows(ruled(b))
	}
	return nil
}

// enterLocked adds the sandbox to those that are known. Whoever had one of its
// ports before has lost it, since its socket could be bound: a container that
// ended and is not detached yet. That is told by the result.
func (s *Service) enterLocked(b Sandbox) (stale bool) {
	type hostPort struct {
		port  uint16
		proto string
	}
	taken := map[hostPort][]Published{}
	for _, p := range b.Ports {
		key := hostPort{p.HostPort, p.Proto}
		taken[key] = append(taken[key], p)
	}
	for id, other := range s.sandboxes {
		lost := func(p Published) bool {
			return p.HostPort != 0 && slices.ContainsFunc(taken[hostPort{p.HostPort, p.Proto}], p.sharesAddress)
		}
		if slices.ContainsFunc(other.Ports, lost) {
			stale = true
			other.Ports = slices.DeleteFunc(slices.Clone(other.Ports), lost)
			s.sandboxes[id] = other
		}
	}
	s.sandboxes[b.ID] = b
	return stale
}

// sharesAddress tells whether both are on a common address of the host.
func (p Published) sharesAddress(q Published) bool {
	return p.HostIP == q.HostIP || p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified()
}

// settleLocked takes what belongs to sandboxes that left out of the tables and
// adds what is given, all in one transaction; the tables are made anew if they
// do not hold it.
func (s *Service) settleLocked(add []firewall.Element) error {
	s.mu.Lock()
	leaving := s.leaving
	s.leaving = nil
	s.mu.Unlock()
	if err := s.firewall.Change(leaving, add); err != nil {
		return s.firewall.Replace(s.wanted())
	}
	return nil
}

// settleRules withdraws what belongs to sandboxes that left.
func (s *Service) settleRules() {
	s.rules.Lock()
	defer s.rules.Unlock()
	if err := s.settleLocked(nil); err != nil {
		slog.Warn("cannot withdraw the rules of containers that are gone", "error", err)
	}
}

func (s *Service) forget(b Sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sandboxes, b.ID)
}

// republish changes what is known of a sandbox, and what belongs to it in the
// tables.
func (s *Service) republish(before, after Sandbox) error {
	s.rules.Lock()
	defer s.rules.Unlock()
	s.mu.Lock()
	now, known := s.sandboxes[before.ID]
	if known {
		if len(before.Ports) > 0 {
			after.Ports = now.Ports // another may have one of them by now
		}
		s.sandboxes[after.ID] = after
	}
	s.mu.Unlock()
	if !known {
		return fault.New(fault.Conflict, "container is not running")
	}
	old, new := s.elements(now), s.elements(after)
	remove, add := firewall.Diff(old, new)
	err := s.settleLocked(nil)
	if err == nil {
		err = s.firewall.Change(remove, add)
	}
	if err != nil {
		err = s.firewall.Replace(s.wanted())
	}
	if err != nil {
		s.mu.Lock()
		s.sandboxes[before.ID] = now
		s.mu.Unlock()
		return errors.Join(err, s.firewall.Replace(s.wanted()))
	}
	if publishesUDP(after.Ports) {
		firewall.ForgetLocalFlows(ruled(after))
	}
	return nil
}

// withdraw takes the sandbox's elements out of the tables: at once if it has
// published ports, else with the next that are changed, or when its interfaces
// are deleted. The sandbox is as stored: another may have one of its ports by
// now.
func (s *Service) withdraw(stored Sandbox) error {
	leaving := s.elements(stored)
	s.mu.Lock()
	s.leaving = append(s.leaving, leaving...)
	s.mu.Unlock()
	if len(stored.Ports) == 0 {
		return nil
	}
	s.rules.Lock()
	defer s.rules.Unlock()
	return s.settleLocked(nil)
}
