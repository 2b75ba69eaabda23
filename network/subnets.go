package network

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	wire "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/ipam"
)

// addressing is where the networks' subnets come from: the host's space, or a driver of
// addresses.
type addressing struct {
	space *ipam.Space
	find  func(ctx context.Context, name string) (Addresses, error) // nil finds none
}

// takeSubnets takes the lan's subnets: those that are asked for or stored, and
// one of each family that has none. What was chosen is entered into the record,
// which is complete already if it was stored.
func (p *addressing) takeSubnets(ctx context.Context, l *lan, stored bool) (err error) {
	defer func() {
		if err != nil {
			l.dropSubnets()
			l.nets = nil
		}
	}()
	switch l.IPAM.Driver {
	case driverNull:
		if l.Driver == networkBridge {
			return fault.New(fault.Invalid, "ipv4 pool is empty")
		}
		return nil
	}
	configs, err := l.subnetConfigs()
	if err != nil {
		return err
	}
	if l.IPAM.Driver != "" && l.IPAM.Driver != "default" {
		return p.takeElsewhere(ctx, l, configs)
	}
	var done []wire.IPAMConfig
	for _, c := range configs {
		v6 := c.v6
		if !stored && c.Subnet.IsValid() && !c.Subnet.Addr().IsUnspecified() {
			l.Static = append(l.Static, c.Subnet)
		}
		config, n, err := p.takeSubnet(&l.opts, c.IPAMConfig, v6, l.wantsGateway(v6))
		if err != nil {
			return err
		}
		l.nets = append(l.nets, n)
		done = append(done, config)
	}
	l.IPAM.Config = done
	return nil
}

// familyConfig is what is asked of a subnet, with its family.
type familyConfig struct {
	wire.IPAMConfig
	v6 bool
}

// subnetConfigs are what is asked of the lan's subnets, IPv4 first.
func (l *lan) subnetConfigs() (out []familyConfig, err error) {
	for _, v6 := range []bool{false, true} {
		if v6 && !l.EnableIPv6 || !v6 && !l.EnableIPv4 {
			continue
		}
		n := 0
		for _, c := range l.IPAM.Config {
			if c.Subnet.IsValid() && c.Subnet.Addr().Is6() == v6 {
				out = append(out, familyConfig{c, v6})
				n++
			}
		}
		if n == 0 {
			out = append(out, familyConfig{v6: v6})
		}
		if n > 1 && l.Driver == networkBridge {
			return nil, fault.New(fault.Forbidden, "bridge driver doesn't support multiple subnets")
		}
	}
	return out, nil
}

// wantsGateway tells whether the host has an address on the lan.
func (l *lan) wantsGateway(v6 bool) bool {
	return l.driver() != nil || l.opts.mode(v6) != modeIsolated && !(l.opts.inhibit4 && l.Internal && !v6)
}

// takeSubnet takes one subnet, with the addresses in it that are not for
// containers: those that are named, and the gateway. It gives what was asked for
// completed.
func (p *addressing) takeSubnet(o *bridgeOptions, c wire.IPAMConfig, v6, gateway bool) (_ wire.IPAMConfig, n subnet, err error) {
	var taken *ipam.Subnet
	if c.Subnet.IsValid() && !c.Subnet.Addr().IsUnspecified() {
		taken, err = p.space.Take(c.Subnet, c.IPRange)
	} else {
		taken, err = p.chooseSubnet(v6, max(c.Subnet.Bits(), 0))
	}
	if err != nil {
		return c, n, err
	}
	defer func() {
		if err != nil {
			taken.Drop()
		}
	}()
	c.Subnet = taken.Prefix()
	n = subnet{source: taken}
	// The gateway that is named first: as the containers' it may be named twice.
	if c.Gateway.IsValid() {
		if err := taken.Claim(c.Gateway); err != nil {
			return c, n, fault.New(fault.Internal, "failed to allocate gateway (%s): %v", c.Gateway, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
		a := c.AuxAddress[name]
		if name == defaultGateway4 && !v6 || name == defaultGateway6 && v6 {
			n.router = a
		}
		if err := taken.Claim(a); err != nil && !(a == c.Gateway && a == n.router) {
			return c, n, fault.New(fault.Internal, "failed to allocate secondary ip address (%s:%s): %v", name, a, err)
		}
	}
	if !c.Gateway.IsValid() && gateway {
		if c.Gateway, err = taken.Next(); err != nil {
			return c, n, fault.New(fault.KindOf(err), "failed to allocate gateway (): %w", err)
		}
	}
	n.gateway = c.Gateway
	return c, n, nil
}

// chooseSubnet takes one that nobody has, of size bits unless that is 0.
func (p *addressing) chooseSubnet(v6 bool, size int) (*ipam.Subnet, error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	avoid, err := avoided(family)
	if err != nil {
		return nil, err
	}
	return p.space.Choose(v6, size, avoid)
}

// CheckAddress tells why a container cannot have a certain address of a family
// on the network; nil if it may. That it is free is not looked at.
func (n Network) CheckAddress(a netip.Addr, v6 bool) error {
	static := slices.DeleteFunc(slices.Clone(n.static), func(p netip.Prefix) bool { return n.Predefined || p.Addr().Is6() != v6 })
	if len(static) == 0 {
		return fault.New(fault.Invalid, "user specified IP address is supported only when connecting to networks with user configured subnets")
	}
	for _, p := range static {
		if p.Contains(a) {
			return nil
		}
	}
	return fault.New(fault.Invalid, "no configured subnet or ip-range contain the IP address %s", a)
}
