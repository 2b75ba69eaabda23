package network

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/link"
)

// Connect gives a running container, whose namespace is netns, a place on one
// more network. Its default route and its published ports move there if the
// place comes first among all; ports are those that it wants to publish, as at
// Attach. A sandbox without an ID is of a container that had no network so far.
// What is returned replaces the caller's copy; the sockets are to be held open as
// long as the container runs, those from before no longer if it has no Ports.
// After an error nothing has changed. The kinds are Attach's; a sandbox that was
// detached is Conflict.
func (s *Service) Connect(ctx context.Context, b Sandbox, netns *os.File, w Want, ports []Port) (_ Sandbox, _ []*os.File, err error) {
	if err := s.begin(); err != nil {
		return b, nil, err
	}
	defer s.tasks.Done()
	if b.ID == "" {
		b.ID = newID()
		s.sandboxes.put(b)
		defer func() {
			if err != nil {
				s.sandboxes.forget(b.ID)
			}
		}()
	}
	unlock, err := s.working.Lock(ctx, b.ID)
	if err != nil {
		return b, nil, err
	}
	defer unlock()
	lans, err := s.lans.join([]Want{w})
	if err != nil {
		return b, nil, err
	}
	defer s.lans.unjoin(lans)
	if err = s.raiser.reviveAll(ctx, lans); err != nil {
		return b, nil, err
	}
	after, sockets, err := s.connect(ctx, b, netns, lans[0], w, ports)
	if err != nil {
		return b, nil, err
	}
	s.pools.want(ctx, lans[0])
	return after, sockets, nil
}

// Sandbox gives a sandbox as it is, false if it is not known. After Restore some
// of its places may be missing: of those that were being given up when the
// daemon ended.
func (s *Service) Sandbox(id string) (Sandbox, bool) {
	b, err := s.sandboxes.get(id)
	return b, err == nil
}

func (s *Service) connect(ctx context.Context, asked Sandbox, netns *os.File, l *lan, w Want, ports []Port) (_ Sandbox, _ []*os.File, err error) {
	before, err := s.sandboxes.get(asked.ID)
	if err != nil {
		return asked, nil, err
	}
	if before.On(l.ID) != nil {
		return asked, nil, fault.New(fault.Forbidden, "endpoint with name %s already exists in network %s", before.Name, l.Name)
	}
	if w.Interface != "" && slices.ContainsFunc(before.Endpoints, func(e Endpoint) bool { return e.Interface == w.Interface }) {
		return asked, nil, fault.New(fault.Invalid, "the container has an interface %s already: choose another name", w.Interface)
	}
	space, err := s.host.Enter(netns)
	if err != nil {
		return asked, nil, err
	}
	b := &box{Space: space}
	defer b.close()
	a := &Attachment{Sandbox: before}
	a.Endpoints = slices.Clone(before.Endpoints)
	e, err := s.fitter.place(l, w, &a.Sandbox)
	if err != nil {
		return asked, nil, err
	}
	a.Endpoints = append(a.Endpoints, e)
	last := &a.Endpoints[len(a.Endpoints)-1]
	defer func() {
		if err != nil {
			s.naming.back(ctx, before, netns)
			closeAll(a.Sockets)
			s.remover.doom(s.fitter.removalOf(last, nil, false))
			s.remover.settle(l.ID)
			err = errors.Join(err, route(space, &before))
		}
	}()
	if err = s.publisher.settle(a, ports); err != nil {
		return asked, nil, err
	}
	if err = s.fitter.plug(ctx, b, l, &a.Sandbox, len(a.Endpoints)-1); err != nil {
		return asked, nil, err
	}
	held, err := s.naming.set(ctx, a.Sandbox, netns, nil)
	if err != nil {
		return asked, nil, err
	}
	a.Sockets = append(a.Sockets, held...)
	if err = s.lans.moveGate(ctx, &a.Sandbox); err != nil {
		return asked, nil, err
	}
	if err = s.rules.republish(before, a.Sandbox); err != nil {
		return asked, nil, connectivityError(a.Sandbox, err)
	}
	b.announce(last)
	return a.Sandbox, a.Sockets, nil
}

// Disconnect takes an endpoint of a running container away, whose namespace is
// netns. The default route and the published ports move to the place that comes
// first among the others; without one, the ports are given up. What is returned
// is as Connect's. An endpoint that is not known is no error.
func (s *Service) Disconnect(ctx context.Context, b Sandbox, netns *os.File, endpointID string, ports []Port) (_ Sandbox, _ []*os.File, err error) {
	if err := s.begin(); err != nil {
		return b, nil, err
	}
	defer s.tasks.Done()
	unlock, err := s.working.Lock(ctx, b.ID)
	if err != nil {
		return b, nil, err
	}
	defer unlock()
	before, err := s.sandboxes.get(b.ID)
	if err != nil {
		return b, nil, err
	}
	i := slices.IndexFunc(before.Endpoints, func(e Endpoint) bool { return e.ID == endpointID })
	if i < 0 {
		return before, nil, nil
	}
	gone := before.Endpoints[i]
	a := &Attachment{Sandbox: before}
	a.Endpoints = slices.Delete(slices.Clone(before.Endpoints), i, i+1)
	space, err := s.host.Enter(netns)
	if err != nil {
		return b, nil, err
	}
	defer space.Close()
	defer func() {
		if err != nil {
			closeAll(a.Sockets)
		}
	}()
	if err := s.publisher.settle(a, ports); err != nil {
		return b, nil, err
	}
	if _, err := s.naming.set(ctx, a.Sandbox, netns, nil); err != nil {
		return b, nil, err
	}
	if err := s.lans.moveGate(ctx, &a.Sandbox); err != nil {
		return b, nil, err
	}
	if err := s.rules.republish(before, a.Sandbox); err != nil {
		return b, nil, err
	}
	if err := s.unplug(space, &gone, before.Ports, &a.Sandbox); err != nil {
		return b, nil, err
	}
	return a.Sandbox, a.Sockets, nil
}

// unplug removes an endpoint's interface from a running container and gives the
// default routes to those that have them now.
func (s *Service) unplug(b *link.Space, gone *Endpoint, before []Published, after *Sandbox) error {
	// First, so that a connection that can go on by the other way does.
	routed := route(b, after)
	if l := s.lans.get(gone.NetworkID); l != nil && l.driver() != nil {
		b.Delete(gone.Interface) // unless the driver has
	}
	s.remover.doom(s.fitter.removalOf(gone, nil, publishesUDP(before)))
	s.remover.settle(gone.NetworkID)
	return routed
}

// Rename tells of a container's new name. What is returned replaces the
// caller's copy.
func (s *Service) Rename(ctx context.Context, b Sandbox, name string) (Sandbox, error) {
	unlock, err := s.working.Lock(ctx, b.ID)
	if err != nil {
		return b, err
	}
	defer unlock()
	after, err := s.sandboxes.get(b.ID)
	if err != nil {
		return b, err
	}
	old := after.Name
	after.Name = name
	for i := range after.Endpoints {
		e := &after.Endpoints[i]
		if len(e.DNSNames) == 0 {
			continue
		}
		names := []string{name}
		for _, n := range e.DNSNames {
			if n != old && n != name {
				names = append(names, n)
			}
		}
		e.DNSNames = names
	}
	if _, err := s.naming.set(ctx, after, nil, nil); err != nil {
		return b, err
	}
	if _, _, err := s.sandboxes.change(b.ID, func(b *Sandbox) { *b = after }); err != nil {
		return b, err
	}
	return after, nil
}

// route sets the default routes of a sandbox as they shall be.
func route(b *link.Space, sb *Sandbox) error {
	for v6, e := range map[bool]*Endpoint{false: sb.Gateway4(), true: sb.Gateway6()} {
		if e == nil {
			continue
		}
		gateway := e.Gateway
		if v6 {
			gateway = e.Gateway6
		}
		if err := b.SetDefault(e.Interface, gateway); err != nil {
			return err
		}
	}
	return nil
}
