package network

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/firewalld"
	"github.com/tarehq/tare/network/link"
)

// raiser makes what networks are on this host, bridges or what their drivers make,
// makes it anew when it is gone, and takes it back.
type raiser struct {
	cfg        *Config
	host       *link.Host
	lans       *lans
	sandboxes  *sandboxes
	rules      *ruleset
	remover    *remover
	pools      *pools
	addressing *addressing
	drivers    drivers

	working keylock.Locks[string] // by network
}

// driverPatience is how long the daemon's start waits for the drivers of networks,
// all together.
const driverPatience = 5 * time.Second

// raiseAll makes the networks' bridges, and what drivers make.
func (r *raiser) raiseAll(ctx context.Context) {
	// Drivers that do not answer are asked again by those who join.
	ctx, cancel := context.WithTimeout(ctx, driverPatience)
	defer cancel()
	for _, l := range r.lans.all() {
		if predefined(l.Name) || l.ConfigOnly {
			continue
		}
		if l.failure == nil {
			l.failure = r.raiseStored(ctx, l)
		}
		if l.failure != nil {
			slog.Error("a network could not be made", "network", l.Name, "driver", l.Driver, "err", l.failure)
		}
	}
}

func (r *raiser) raiseStored(ctx context.Context, l *lan) error {
	if l.Driver != networkBridge {
		d, err := r.drivers.find(ctx, l.Driver)
		if err != nil {
			return err
		}
		l.setDriver(d)
		if kept, ok := d.(Restorer); ok {
			return kept.Restore(ctx, l.Network)
		}
		return d.Create(ctx, l.Network)
	}
	b := r.bridgeOf(l)
	if _, err := b.raise(); err != nil {
		return err
	}
	r.lans.setBridge(l, b)
	return nil
}

// bringUp makes the network on this host: its bridge with the rules, or what its
// driver makes.
func (r *raiser) bringUp(ctx context.Context, l *lan) error {
	if d := l.driver(); d != nil {
		return d.Create(ctx, l.Network)
	}
	b := r.bridgeOf(l)
	if err := r.checkRoutes(l); err != nil {
		return err
	}
	made, err := b.raise()
	if err != nil {
		return err
	}
	l.Foreign = b.Foreign
	r.lans.setBridge(l, b)
	if err = r.rules.renew(); err == nil {
		err = r.admit(l.Bridge)
	}
	if err != nil {
		r.lans.setBridge(l, nil)
		if made {
			err = errors.Join(err, lowerBridge(l.Bridge))
		}
		return err
	}
	return nil
}

// admit has firewalld let through what passes the bridge, unless that is the host's
// own affair.
func (r *raiser) admit(bridge string) error {
	if r.cfg.NoRules {
		return nil
	}
	return firewalld.Join(bridge)
}

// bridgeOf is a lan's bridge as it shall be.
func (r *raiser) bridgeOf(l *lan) *bridge {
	b := &bridge{internal: l.Internal, open: r.cfg.ForwardAll, lone: r.cfg.NoForwarding, bare: [2]bool{r.cfg.NoRules, r.cfg.NoRules6}, Bridge: link.Bridge{
		Name: l.Bridge, Unruled: r.cfg.NoRules, MTU: l.opts.mtu, MAC: link.BridgeMAC(r.cfg.Identity, l.Bridge), Address4: l.own(false), Address6: l.own(true),
	}}
	if l.Name == networkBridge {
		b.MAC = link.BridgeMAC(r.cfg.Name, l.Bridge) // as ever
	}
	if b.MTU == 0 {
		b.MTU = defaultMTU
	}
	return b
}

// checkRoutes refuses a subnet that was asked for and that would cut off what
// the host reaches now: one that a route of its own leads to, whole or in part.
// A subnet within a larger range is what routing is for.
func (r *raiser) checkRoutes(l *lan) error {
	for _, static := range l.Static {
		family := unix.AF_INET
		if static.Addr().Is6() {
			family = unix.AF_INET6
		}
		routes, err := link.HostRoutes(family)
		if err != nil {
			return err
		}
		own, _ := r.host.Index(l.Bridge) // 0 if it is not there yet
		for _, to := range routes {
			if to.Device != own && static.Contains(to.Destination.Addr()) && static.Bits() <= to.Destination.Bits() {
				return fault.New(fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space: the host has a route to %s", to.Destination)
			}
		}
	}
	return nil
}

// takeDown takes back what bringUp made.
func (r *raiser) takeDown(ctx context.Context, l *lan) error {
	r.pools.end(l, true)
	r.remover.settle(l.ID) // its interfaces, and with them its addresses
	if d := l.driver(); d != nil {
		if l.state == lanLeaving {
			return nil // it has been asked
		}
		return d.Remove(ctx, l.Network)
	}
	r.lans.setBridge(l, nil)
	err := r.rules.renew()
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

// reviveAll tries again to make those of the networks that could not be made.
func (r *raiser) reviveAll(ctx context.Context, lans []*lan) error {
	for _, l := range lans {
		if err := r.revive(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// revive makes a network again that could not be made, or whose bridge somebody
// has deleted.
func (r *raiser) revive(ctx context.Context, l *lan) error {
	if up, br := r.lans.stands(l); up && (br == nil || r.stands(br)) {
		return nil
	}
	unlock, err := r.working.Lock(ctx, l.ID)
	if err != nil {
		return err
	}
	defer unlock()
	r.pools.end(l, true) // its namespaces are on no bridge
	if len(l.subnets()) == 0 && l.IPAM.Driver != driverNull {
		taken := &lan{record: l.record, opts: l.opts}
		if err := r.addressing.takeSubnets(ctx, taken, true); err != nil {
			return l.whyDown(err)
		}
		l.setSubnets(taken.nets)
	}
	if err := r.raiseStored(ctx, l); err != nil {
		return l.whyDown(err)
	}
	r.lans.mended(l)
	if l.Name == networkBridge {
		r.pools.start(ctx, l)
	}
	if err := r.rules.renew(); err != nil {
		return err
	}
	if err := r.admit(l.Bridge); err != nil {
		return err
	}
	// Those that run on it. What is nobody's is being attached just now.
	_, err = r.reconcilePorts()
	return err
}

// stands tells whether the bridge is still the one that was raised.
func (r *raiser) stands(b *bridge) bool {
	index, err := r.host.Index(b.Name)
	return err == nil && index == b.Index
}

// lowerOrphans deletes bridges of ours that are no network's: the daemon ended
// between two steps.
func (r *raiser) lowerOrphans() error {
	links, err := link.Interfaces()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, l := range r.lans.all() {
		wanted[l.Bridge] = true
	}
	for _, l := range links {
		if l.Kind == "bridge" && !wanted[l.Name] && bytes.Equal(l.MAC, link.BridgeMAC(r.cfg.Identity, l.Name)) {
			if err := lowerBridge(l.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// reconcilePorts compares the bridges' ports with the endpoints: it gives those
// that no endpoint names for removal, and puts back on their bridge those that
// lost it when it was made anew.
func (r *raiser) reconcilePorts() (orphans []removal, err error) {
	links, err := link.Interfaces()
	if err != nil {
		return nil, err
	}
	wanted := r.lans.masters()
	for _, l := range links {
		if !r.host.Ours(l.Name) || l.Kind != "veth" {
			continue
		}
		master, known := wanted[l.Name]
		switch {
		case !known:
			orphans = append(orphans, removal{host: l.Name})
		case master != 0 && l.Master != master:
			if err := r.host.PutOn(l, master); err != nil {
				return nil, err
			}
		}
	}
	return orphans, nil
}

// refuseStrangers fails when containers are on the bridge that a daemon of
// another identity left running: their addresses are not known here, and their
// published ports would go with the table.
func (r *raiser) refuseStrangers(ctx context.Context) error {
	if r.cfg.Bridge == "" {
		return nil
	}
	known := r.sandboxes.interfaces()
	for deadline := time.Now().Add(claimPatience); ; {
		name, err := r.stranger(known)
		if name == "" || err != nil {
			return err
		}
		// Those of a daemon that was just killed vanish in the kernel's own time.
		if time.Now().After(deadline) || !pause(ctx, 10*time.Millisecond) {
			return fault.New(fault.Conflict, "containers of a tared with another data root are on the bridge %s (%s): end them, or choose another bridge by --bridge", r.cfg.Bridge, name)
		}
	}
}

// stranger finds an interface on the bridge that another identity made; "" is
// none.
func (r *raiser) stranger(known map[string]bool) (string, error) {
	bridge, err := r.host.Index(r.cfg.Bridge)
	if err != nil {
		return "", err
	}
	links, err := link.Interfaces()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if l.Master == bridge && r.host.Strange(l) && !known[l.Name] {
			return l.Name, nil
		}
	}
	return "", nil
}

// whyDown is why nobody can join a lan that is not up.
func (l *lan) whyDown(err error) error {
	if err == nil {
		err = errors.New("its bridge is gone")
	}
	return fault.New(fault.Internal, "the network %s is not up: %w", l.Name, err)
}
