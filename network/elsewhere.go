package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	wire "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// elsewhere is a subnet whose addresses a driver of addresses gives out. The
// driver is looked for each time: it may have started again.
type elsewhere struct {
	find   func(ctx context.Context, name string) (Addresses, error)
	driver string
	pool   string
	prefix netip.Prefix
	own    []netip.Addr // those that are not containers': gateway, auxiliary
}

// takeElsewhere takes the lan's subnets from a driver of addresses, or takes up
// those that are stored, which the driver has.
func (p *addressing) takeElsewhere(ctx context.Context, l *lan, configs []familyConfig) error {
	if p.find == nil {
		return fault.New(fault.NotFound, "could not find plugin %s in v1 plugin registry: plugin not found", l.IPAM.Driver)
	}
	stored := len(l.Pools) == len(configs) && len(l.Pools) > 0
	var done []wire.IPAMConfig
	for i, c := range configs {
		n := &elsewhere{find: p.find, driver: l.IPAM.Driver}
		if stored {
			n.pool, n.prefix = l.Pools[i], c.Subnet
			n.own = append(slices.Collect(maps.Values(c.AuxAddress)), c.Gateway)
		} else if err := p.takeNew(ctx, l, n, &c); err != nil {
			return err
		}
		l.nets = append(l.nets, subnet{source: n, gateway: c.Gateway})
		done = append(done, c.IPAMConfig)
	}
	l.IPAM.Config = done
	return nil
}

// takeNew takes one pool with the addresses in it that are not for containers, and
// completes what was asked for.
func (p *addressing) takeNew(ctx context.Context, l *lan, n *elsewhere, c *familyConfig) (err error) {
	want := PoolWant{Subnet: c.Subnet, Within: c.IPRange, V6: c.v6, Options: l.IPAM.Options}
	if c.Subnet.IsValid() {
		l.Static = append(l.Static, c.Subnet)
	} else if want.Avoid, err = avoided(map[bool]int{false: unix.AF_INET, true: unix.AF_INET6}[c.v6]); err != nil {
		return err
	}
	a, err := n.find(ctx, n.driver)
	if err != nil {
		return err
	}
	pool, err := a.TakePool(ctx, want)
	if err != nil {
		return err
	}
	n.pool, n.prefix, c.Subnet = pool.ID, pool.Subnet.Masked(), pool.Subnet.Masked()
	defer func() {
		if err != nil {
			n.Drop()
		}
	}()
	take := func(what string, wanted netip.Addr, use AddressUse) (netip.Addr, error) {
		p, err := a.Take(ctx, n.pool, wanted, use, "")
		if err != nil {
			return netip.Addr{}, fmt.Errorf("failed to allocate %s: %w", what, err)
		}
		n.own = append(n.own, p.Addr())
		return p.Addr(), nil
	}
	switch {
	case c.Gateway.IsValid() || l.wantsGateway(c.v6) && !pool.Gateway.IsValid():
		if c.Gateway, err = take("gateway", c.Gateway, ForGateway); err != nil {
			return err
		}
	case pool.Gateway.IsValid():
		c.Gateway = pool.Gateway.Addr()
	}
	for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
		if _, err = take("secondary ip address "+name, c.AuxAddress[name], ForEndpoint); err != nil {
			return err
		}
	}
	l.Pools = append(l.Pools, n.pool)
	return nil
}

func (n *elsewhere) Prefix() netip.Prefix { return n.prefix }

// ask does something with the driver, which has some time for it.
func (n *elsewhere) ask(f func(context.Context, Addresses) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), linger)
	defer cancel()
	a, err := n.find(ctx, n.driver)
	if err != nil {
		return err
	}
	return f(ctx, a)
}

// byMAC tells whether the driver gives addresses to interfaces that it knows.
func (n *elsewhere) byMAC() (needs bool) {
	_ = n.ask(func(_ context.Context, a Addresses) error { needs = a.NeedsMAC(); return nil }) // taking one tells why not
	return needs
}

func (n *elsewhere) takeFor(wanted netip.Addr, mac string) (a netip.Addr, err error) {
	err = n.ask(func(ctx context.Context, d Addresses) error {
		p, err := d.Take(ctx, n.pool, wanted, ForEndpoint, mac)
		a = p.Addr()
		return err
	})
	return a, err
}

func (n *elsewhere) Next() (netip.Addr, error) { return n.takeFor(netip.Addr{}, "") }

func (n *elsewhere) Claim(a netip.Addr) error {
	_, err := n.takeFor(a, "")
	return err
}

func (n *elsewhere) Release(a netip.Addr) {
	if err := n.ask(func(ctx context.Context, d Addresses) error { return d.Drop(ctx, n.pool, a) }); err != nil {
		slog.Warn("an address could not be given back to its driver", "driver", n.driver, "address", a, "err", err)
	}
}

// Drop gives the pool back, with what is not a container's in it.
func (n *elsewhere) Drop() {
	err := n.ask(func(ctx context.Context, d Addresses) (err error) {
		for _, a := range n.own {
			if a.IsValid() {
				err = errors.Join(err, d.Drop(ctx, n.pool, a))
			}
		}
		return errors.Join(err, d.DropPool(ctx, n.pool))
	})
	if err != nil {
		slog.Warn("a subnet could not be given back to its driver", "driver", n.driver, "subnet", n.prefix, "err", err)
	}
}
