package container

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
)

// Disconnect takes a container off a network, a running one at once. With force
// also off one that is no more.
func (p *Places) Disconnect(ctx context.Context, nameOrID, networkName string, force bool) error {
	s := p.containers
	n, lookupErr := s.cfg.Networks.Lookup(networkName)
	r, unlock, err := s.lock(ctx, nameOrID)
	if errors.Is(err, fault.NotFound) && force { // no network has an endpoint of a container that is no more
		if lookupErr != nil {
			return lookupErr
		}
		return fault.New(fault.NotFound, "endpoint %s not found", nameOrID)
	}
	if err != nil {
		return err
	}
	defer unlock()
	if lookupErr == nil {
		networkName = n.Name
	} else if r.State.Up() && !force {
		return lookupErr
	}
	if r.HostConfig.NetworkMode.IsHost() && networkName == wirenet.NetworkHost {
		return fault.New(fault.Invalid, "cannot disconnect container from host network - container was created in host network mode")
	}
	all := r.AllWishes()
	settings := all[networkName]
	delete(all, networkName)
	ctx = context.WithoutCancel(ctx)
	if r.State.Up() && lookupErr == nil && networkName != wirenet.NetworkNone {
		if r.Sandbox == nil || r.Sandbox.On(n.ID) == nil {
			return fault.New(fault.Internal, "container %s is not connected to network %s", r.ID, n.Name)
		}
		return (&connection{containers: s, r: r}).remove(ctx, n.ID, all)
	}
	if settings == nil {
		return fault.New(fault.Internal, "container %s is not connected to the network %s", r.ID, networkName)
	}
	_, err = s.store.Amend(r.ID, func(c *record.Spec) error { c.Networks = all; return nil })
	return err
}

// remove takes the container off a network that it is on, and has all others
// wished.
func (c *connection) remove(ctx context.Context, networkID string, all map[string]*wirenet.EndpointSettings) error {
	s, r := c.containers, c.r
	before := c.sandbox()
	gone := *before.On(networkID)
	netns, err := c.netns()
	if err != nil {
		return err
	}
	defer netns.Close()
	// First: the next daemon takes back what nobody wishes any more.
	if err := c.wish(all); err != nil {
		return err
	}
	ports, err := publishing(&r, s.cfg.Defaults.Get())
	if err != nil {
		return err
	}
	after, sockets, err := s.cfg.Networks.Disconnect(ctx, before, netns, gone.ID, ports)
	if err != nil {
		return errors.Join(err, c.wish(r.AllWishes()))
	}
	defer closeAllFiles(sockets)
	if err := c.hold(ctx, &after, sockets); err != nil {
		s.cfg.Log.Error("the ports of a container that left a network are not as they should be until it is started again", "container", r.ID, "err", err)
	}
	if err := c.record(ctx, after); err != nil {
		return err
	}
	if err := c.untellFiles(&gone); err != nil {
		s.cfg.Log.Error("the hosts file of a disconnected container cannot be changed", "container", r.ID, "err", err)
	}
	publishPlace(s.cfg.Events, r.ID, gone, events.ActionDisconnect)
	return nil
}
