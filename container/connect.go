package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// Connect gives a container a place on one more network: a running one at once,
// any other with its next start. When it returns that survives power loss.
func (p *Places) Connect(ctx context.Context, nameOrID, networkName string, e *wirenet.EndpointSettings) error {
	s := p.containers
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	n, err := s.cfg.Networks.Lookup(networkName)
	switch {
	case err == nil:
		networkName = n.Name
	case !errors.Is(err, fault.NotFound) || r.State.Up(): // it may come to be until the next start
		return err
	}
	settings := record.Wish(e)
	if err := fits(&r, n.Network, networkName); err != nil {
		return err
	}
	if err := p.check(networkName, settings); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if r.State.Up() {
		if e := r.BareEndpoint(s.cfg.Networks); e != nil && e.NetworkID == n.ID {
			return fault.New(fault.Forbidden, "endpoint with name %s already exists in network %s", r.Name, n.Name)
		}
		return (&connection{containers: s, r: r}).add(ctx, record.Place{Network: networkName, ID: n.ID, Settings: settings})
	}
	all := r.AllWishes()
	if _, already := all[networkName]; already { // Docker says nothing, and leaves it as it is
		return nil
	}
	all[networkName] = settings
	_, err = s.store.Amend(r.ID, func(c *record.Spec) error { c.Networks = all; return nil })
	return err
}

// fits refuses a network beside which, or beside whose like, a container can
// have no other.
func fits(r *Record, n wirenet.Network, name string) error {
	mode := r.HostConfig.NetworkMode
	switch {
	case mode.IsContainer():
		return errShared
	case n.Driver == wirenet.NetworkHost && !mode.IsHost():
		return errNotHost
	}
	for _, p := range r.Places() {
		switch {
		case p.Network == name:
			return nil
		case p.Network == wirenet.NetworkHost || n.Driver == wirenet.NetworkHost:
			return errShared
		case p.Network == wirenet.NetworkNone || name == wirenet.NetworkNone:
			return errNone
		}
	}
	return nil
}

// connection changes the places of a running container, under its operation
// lock.
type connection struct {
	containers *Service
	r          Record
}

// sandbox is the container's, a new one if it has had no network so far.
func (c *connection) sandbox() network.Sandbox {
	if c.r.Sandbox != nil {
		return *c.r.Sandbox
	}
	return network.Sandbox{ContainerID: c.r.ID, Name: c.r.Name, Hostname: c.r.Config.Hostname, Domainname: c.r.Config.Domainname}
}

// netns opens the container's namespace, certainly its own.
func (c *connection) netns() (*os.File, error) {
	ns, err := supervise.OpenNamespace(c.containers.bundles.path(c.r.ID), "net")
	if errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) {
		return nil, notRunning(c.r)
	}
	return ns, err
}

func (c *connection) add(ctx context.Context, p record.Place) (err error) {
	s, r := c.containers, c.r
	var back undo.Stack
	defer back.OnError(&err)
	want, err := p.Want()
	if err != nil {
		return err
	}
	want.WithoutIPv6 = r.WithoutIPv6()
	netns, err := c.netns()
	if err != nil {
		return err
	}
	defer netns.Close()
	ports, err := publishing(&r, s.cfg.Defaults.Get())
	if err != nil {
		return err
	}
	after, sockets, err := s.cfg.Networks.Connect(ctx, c.sandbox(), netns, want, ports)
	if err != nil {
		return err
	}
	defer closeAllFiles(sockets)
	made := after.On(p.ID)
	back.Push(func() error {
		before, sockets, err := s.cfg.Networks.Disconnect(ctx, after, netns, made.ID, ports)
		defer closeAllFiles(sockets)
		return errors.Join(err, c.hold(ctx, &before, sockets), c.record(ctx, before))
	})
	if err := c.hold(ctx, &after, sockets); err != nil {
		return err
	}
	all := r.AllWishes()
	all[p.Network] = p.Settings
	// A daemon that dies in between leaves a place that nobody wishes, which the
	// next one takes back: it was not acknowledged.
	if err := c.record(ctx, after); err != nil {
		return err
	}
	if err := c.wish(all); err != nil {
		return err
	}
	if err := c.tellFiles(r.Sandbox, &after, made); err != nil {
		s.cfg.Log.Error("a connected container's hosts file or resolv.conf cannot be changed", "container", r.ID, "err", err)
	}
	publishPlace(s.cfg.Events, r.ID, *made, events.ActionConnect)
	return nil
}

// hold has the supervising process hold more sockets, or give those up that are of
// no use any more, and serve the ports where they lead to now.
func (c *connection) hold(ctx context.Context, after *network.Sandbox, sockets []*os.File) error {
	s, r := c.containers, c.r
	served := relays(after)
	same := slices.Equal(relays(r.Sandbox), served)
	free := r.Sandbox != nil && len(r.Sandbox.Ports) > 0 && len(after.Ports) == 0
	if same && !free && len(sockets) == 0 {
		return nil
	}
	keeper, ended, err := s.lives.running(r)
	if err != nil {
		return err
	}
	if free {
		return ofRun(r, ended, keeper.Unpublish(ctx))
	}
	err = keeper.Hold(ctx, sockets)
	if err == nil && !same { // what an older process cannot do
		err = keeper.Relay(ctx, served)
	}
	return ofRun(r, ended, err)
}

// record keeps what has changed: beside the bundle for the next daemon, and in
// memory. A run that has ended meanwhile has given its places back, and what is
// new goes with them.
func (c *connection) record(ctx context.Context, after network.Sandbox) error {
	s, r := c.containers, c.r
	if err := c.relay(ctx, &after); err != nil {
		return err
	}
	err := keepSandbox(s.bundles.path(r.ID), &after)
	if err == nil {
		_, err = s.store.Note(r.ID, func(p *record.Progress) error {
			if !p.State.Up() || !p.StartedAt.Equal(r.StartedAt) {
				return errOver
			}
			p.Sandbox, p.NetworkIDs = &after, record.NetworkIDs(&after)
			return nil
		})
	}
	if errors.Is(err, errOver) || errors.Is(err, fs.ErrNotExist) { // the bundle goes with the run
		return detach(ctx, s.cfg.Networks, &after)
	}
	return err
}

// relay tells the supervising process which ports it serves itself from now on,
// where that has changed.
func (c *connection) relay(ctx context.Context, after *network.Sandbox) error {
	now := relays(after)
	if slices.Equal(now, relays(c.r.Sandbox)) {
		return nil
	}
	keeper, ended, err := c.containers.lives.running(c.r)
	if err != nil {
		return err
	}
	return ofRun(c.r, ended, keeper.Relay(ctx, now))
}

// wish keeps where the container shall be from now on.
func (c *connection) wish(all map[string]*wirenet.EndpointSettings) error {
	_, err := c.containers.store.Amend(c.r.ID, func(c *record.Spec) error { c.Networks = all; return nil })
	return err
}

func closeAllFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// renamed tells the networks of a running container's new name.
func (c *connection) renamed(ctx context.Context, name string) error {
	s, r := c.containers, c.r
	if r.Sandbox == nil {
		return nil
	}
	after, err := s.cfg.Networks.Rename(ctx, *r.Sandbox, name)
	if err != nil {
		return err
	}
	return c.record(ctx, after)
}
