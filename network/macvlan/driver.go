// Package macvlan makes the networks of the drivers macvlan and ipvlan: their
// containers' interfaces stand beside an interface of the host, the parent, on
// the link that it is on, and the host takes no part. Two networks may share a
// parent.
//
// The option parent names it. One such as eth0.10 that is not there is made, the
// VLAN 10 of eth0, and goes with the last network on it. A network without a
// parent gets one that leads nowhere, dm-NETWORKID, and so is internal.
//
//	macvlan  macvlan_mode  bridge (if none is named), private, vepa, passthru
//	ipvlan   ipvlan_mode   l2 (if none is named), l3, l3s
//	         ipvlan_flag   bridge (if none is named), private, vepa
//
// What a driver knows is in the network's options and in the kernel; nothing is
// stored.
package macvlan

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	wire "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
)

// The kinds of driver, as Docker and the kernel name them.
const (
	Macvlan = "macvlan"
	IPvlan  = "ipvlan"
)

// Driver is one of the two. It acts on the network namespace of its callers.
type Driver struct {
	kind string

	mu       sync.Mutex
	networks map[string]config // by ID; held while parents come and go
}

// New returns the driver of a kind.
func New(kind string) *Driver {
	return &Driver{kind: kind, networks: map[string]config{}}
}

// Check refuses options that cannot be, a kernel without the kind of interface and
// a parent that is not there.
func (d *Driver) Check(_ context.Context, n *wire.Network) error {
	c, err := d.config(*n)
	if err != nil {
		return err
	}
	if !known(d.kind) {
		return fault.New(fault.NotImplemented, "network driver %s needs a kernel with %s interfaces (CONFIG_%s), which the one that runs here does not have", d.kind, d.kind, map[string]string{Macvlan: "MACVLAN", IPvlan: "IPVLAN"}[d.kind])
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkShared(c); err != nil {
		return err
	}
	return c.checkParent()
}

// checkShared refuses a second network on a parent that one has for itself.
func (d *Driver) checkShared(c config) error {
	for id, other := range d.networks {
		if id == c.id || other.parent != c.parent {
			continue
		}
		if c.mode == passthru {
			return fault.New(fault.Forbidden, "cannot use mode passthru, macvlan network %s is already using parent interface %s", id, c.parent)
		}
		if other.mode == passthru {
			return fault.New(fault.Forbidden, "macvlan network %s is already using parent interface %s in mode passthru", id, c.parent)
		}
	}
	return nil
}

// Create makes the parent if it is one to be made.
func (d *Driver) Create(_ context.Context, n wire.Network) error {
	c, err := d.config(n)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// Known even if its parent cannot be made now, such as a card that was pulled:
	// the next Join tries again.
	d.networks[n.ID] = c
	return c.raiseParent()
}

// Remove removes the parent if it was made for networks and this is the last one.
func (d *Driver) Remove(_ context.Context, n wire.Network) error {
	c, err := d.config(n)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.networks, n.ID)
	for _, other := range d.networks {
		if other.parent == c.parent {
			return nil
		}
	}
	return c.removeParent()
}

// Join makes the endpoint's interface, in the container's namespace from its first
// moment, so that none is left on the host whatever happens.
func (d *Driver) Join(_ context.Context, n wire.Network, e *network.Endpoint, netns *os.File) (network.Link, error) {
	c, err := d.config(n)
	if err != nil {
		return network.Link{}, err
	}
	if d.kind == IPvlan && e.MAC != "" {
		return network.Link{}, fault.New(fault.Invalid, "ipvlan interfaces do not support custom mac address assignment: all have the parent's")
	}
	parent, err := d.parent(c)
	if err != nil {
		return network.Link{}, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = linkName(), parent.Attrs().Index, netlink.NsFd(netns.Fd())
	err = netlink.LinkAdd(c.link(attrs))
	switch {
	case errors.Is(err, unix.EBUSY):
		return network.Link{}, fault.New(fault.Conflict, "interface %s is taken by a bridge, a bond, another kind of container network or one in mode passthru; name another parent", c.parent)
	case errors.Is(err, unix.EINVAL) && c.mode == passthru:
		return network.Link{}, fault.New(fault.Conflict, "interface %s passes through to one container at a time, and another has it", c.parent)
	case err != nil:
		return network.Link{}, fmt.Errorf("failed to create the %s port on %s: %w", d.kind, c.parent, err)
	}
	link := network.Link{Name: attrs.Name, Inside: true}
	if c.routed() {
		// There is nobody to ask for a neighbour: the way out is the interface.
		e.Gateway, e.Gateway6 = netip.Addr{}, netip.Addr{}
		if e.Address.IsValid() && !c.internal {
			link.Routes = append(link.Routes, network.Route{Destination: netip.PrefixFrom(netip.IPv4Unspecified(), 0)})
		}
		if e.Address6.IsValid() && !c.internal {
			link.Routes = append(link.Routes, network.Route{Destination: netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
		}
	}
	if c.made || c.internal {
		e.Gateway, e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	return link, nil
}

// parent gives the network's, which is made if it should be there and is not.
func (d *Driver) parent(c config) (netlink.Link, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := c.raiseParent(); err != nil {
		return nil, err
	}
	return netlink.LinkByName(c.parent)
}

// Leave has nothing to do: the interface goes with the namespace, or by whoever
// called Join.
func (d *Driver) Leave(context.Context, wire.Network, network.Endpoint) error { return nil }

// linkName is the interface's until it gets the one that the container sees.
func linkName() string {
	random := make([]byte, 5)
	rand.Read(random)
	return "tm" + hex.EncodeToString(random)
}
