package network

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/link"
	"github.com/tarehq/tare/network/shape"
)

// fitter makes the containers' places on networks: namespaces, interfaces and
// addresses, and leaves to the remover what is done with.
type fitter struct {
	host      *link.Host
	lans      *lans
	sandboxes *sandboxes
	rules     *ruleset
	remover   *remover
	drain     func(*lan) // gives up the namespaces that wait on the lan, for their addresses
}

// place takes what an endpoint needs that is not the kernel's: addresses, names.
func (f *fitter) place(l *lan, w Want, b *Sandbox) (e Endpoint, err error) {
	if err = CheckWant(w); err == nil {
		err = CheckRate(Network{Network: l.Network}, w.Rate)
	}
	if err != nil {
		return e, err
	}
	e = Endpoint{
		ID: newID(), NetworkID: l.ID, NetworkName: l.Name, Driver: l.Driver, Interface: w.Interface, LinkLocal: w.LinkLocal, Internal: l.Internal,
		Links: maps.Clone(w.Links), Sysctls: w.Sysctls, Options: maps.Clone(w.Options), GwPriority: w.GwPriority, Rate: w.Rate,
		Chosen: w.Address.IsValid() || w.Address6.IsValid() || w.MAC != "",
	}
	defer func() {
		if err != nil {
			f.giveUp(&lan{nets: l.subnets()}, &e)
		}
	}()
	mac := w.MAC
	if mac == "" && l.needsMAC() {
		if mac, err = macFor("", netip.Addr{}, netip.Addr{}); err != nil {
			return e, err
		}
	}
	for _, v6 := range []bool{false, true} {
		wanted, address, gateway := w.Address, &e.Address, &e.Gateway
		if v6 {
			wanted, address, gateway = w.Address6, &e.Address6, &e.Gateway6
		}
		if v6 && w.WithoutIPv6 {
			continue
		}
		if l.first(v6) == nil {
			if wanted.IsValid() {
				return e, fault.New(fault.Invalid, "invalid address %s: It does not belong to any of this network's subnets", wanted)
			}
			continue
		}
		p, n, err := f.takeAddress(l, v6, wanted, mac)
		if err != nil {
			return e, err
		}
		*address, *gateway = p, l.gateway(n)
	}
	if mac != "" || l.Driver == networkBridge { // others choose it themselves
		if e.MAC, err = macFor(mac, e.Address.Addr(), e.Address6.Addr()); err != nil {
			return e, err
		}
	}
	e.DNSNames = l.dnsNames(b, w.Aliases)
	return e, nil
}

// takeAddress takes an address; those that only wait for their last interface
// to be deleted are free.
func (f *fitter) takeAddress(l *lan, v6 bool, wanted netip.Addr, mac string) (netip.Prefix, *subnet, error) {
	p, n, err := l.take(v6, wanted, mac)
	if errors.Is(err, fault.Forbidden) || errors.Is(err, fault.Unavailable) {
		f.drain(l)
		f.remover.settle(l.ID)
		p, n, err = l.take(v6, wanted, mac)
	}
	return p, n, err
}

// equip gives the sandbox a namespace with an interface for each endpoint: b, if
// it is one that waited, or the one that was asked for, ns. On failure b is still the
// caller's.
func (f *fitter) equip(ctx context.Context, lans []*lan, sb *Sandbox, b *box, ns *os.File) (_ *box, err error) {
	switch {
	case b != nil && b.waiting != nil:
		return b, f.plugAll(ctx, b, lans, sb, 1)
	case b != nil:
		err := f.plugAll(ctx, b, lans, sb, 0)
		if err == nil {
			return b, nil
		}
		// Somebody may have deleted its interface while it waited.
		f.discard(b, sb)
		if len(lans) > 1 {
			return nil, err
		}
	}
	if ns != nil {
		b, err = f.boxOf(ns)
	} else {
		b, err = f.makeBox(nil)
	}
	if err != nil {
		return nil, err
	}
	if err := f.plugAll(ctx, b, lans, sb, 0); err != nil {
		f.discard(b, sb)
		return nil, err
	}
	return b, nil
}

// plugAll makes the sandbox's interfaces from the i-th on.
func (f *fitter) plugAll(ctx context.Context, b *box, lans []*lan, sb *Sandbox, from int) error {
	for i := from; i < len(sb.Endpoints); i++ {
		if err := f.plug(ctx, b, lans[i], sb, i); err != nil {
			return err
		}
	}
	return nil
}

// plug makes the interface of the sandbox's i-th endpoint, with its default
// routes if it has them among all.
func (f *fitter) plug(ctx context.Context, b *box, l *lan, sb *Sandbox, i int) error {
	e := &sb.Endpoints[i]
	p, made, err := f.makePort(ctx, b, l, sb, i)
	if err != nil {
		return err
	}
	if p == nil { // its driver has none
		e.Gateway, e.Gateway6 = netip.Addr{}, netip.Addr{}
		return nil
	}
	if err := b.configure(p, e, made, sb.Gateway4() == e, sb.Gateway6() == e); err != nil {
		return err
	}
	if e.Rate != (Rate{}) {
		if err := shape.Set(e.HostInterface, e.Rate); err != nil {
			return err
		}
	}
	if e.MAC == "" {
		if e.MAC, err = b.MAC(p); err != nil {
			return err
		}
	}
	return nil
}

// makePort makes the endpoint's interface, under its name and with its settings.
func (f *fitter) makePort(ctx context.Context, b *box, l *lan, sb *Sandbox, i int) (*link.Port, Link, error) {
	e := &sb.Endpoints[i]
	if p := b.first; p != nil {
		b.first = nil
		e.Interface, e.HostInterface = "eth0", p.Host
		return p, Link{}, nil
	}
	var p *link.Port
	made := Link{Prefix: l.opts.prefix}
	var err error
	d := l.driver()
	if d != nil {
		if made, err = d.Join(ctx, l.Network, e, b.NS); err != nil || made.Name == "" {
			return nil, made, err
		}
	}
	others := slices.Concat(sb.Endpoints[:i], sb.Endpoints[i+1:])
	if made.Prefix == "" {
		made.Prefix = defaultInterfaceName
	}
	name := e.Interface
	if name == "" {
		name = b.freeName(made.Prefix, others)
	}
	switch {
	case d == nil:
		var br link.Bridge
		if br, err = f.lans.bridgeUp(l); err == nil {
			p, err = b.Plug(&br, name)
		}
		if p != nil {
			e.HostInterface = p.Host
		}
	case made.Inside:
		p, err = b.Name(made.Name, name)
	default:
		p, err = b.Take(made.Name, name)
	}
	if err != nil {
		return nil, made, err
	}
	e.Interface = name
	return p, made, b.Prepare(name, made.Bare, l.first(true) != nil, e.Sysctls)
}

// hold keeps the namespace open, or the kernel would end it, alone and at once,
// when the container ends.
func (f *fitter) hold(sandboxID string, b *box) {
	b.closeRest()
	f.sandboxes.hold(sandboxID, b.NS)
	f.remover.signal()
}

// discard abandons a namespace whose interfaces may have the endpoints'
// addresses already: they must not answer for them beside those that get them.
func (f *fitter) discard(b *box, sb *Sandbox) {
	for i := range sb.Endpoints {
		e := &sb.Endpoints[i]
		if !f.host.Ours(e.HostInterface) {
			continue
		}
		f.host.Down(e.HostInterface)
		if e.Rate != (Rate{}) {
			_ = shape.Clear(e.HostInterface) // else the next start's
		}
		f.remover.doom(removal{host: e.HostInterface})
		e.HostInterface = ""
	}
	f.abandon(b, nil)
}

// abandon leaves a namespace to the remover, with the endpoints in it.
func (f *fitter) abandon(b *box, endpoints []Endpoint) {
	b.closeRest()
	if b.waiting != nil {
		if endpoints == nil {
			endpoints = b.waiting.Endpoints
		}
		f.sandboxes.unwait(b.waiting, f.rules.elements(*b.waiting))
	}
	ns := b.NS
	if b.first != nil {
		f.remover.doom(removal{host: b.first.Host, ns: ns})
		ns = nil
	}
	for i := range endpoints {
		f.remover.doom(f.removalOf(&endpoints[i], ns, false))
		ns = nil
	}
	if ns != nil {
		f.remover.doom(removal{ns: ns})
	}
}

// makeBox makes a namespace. With a lan it has an interface eth0 there.
func (f *fitter) makeBox(l *lan) (*box, error) {
	if l == nil {
		space, err := f.host.New()
		if err != nil {
			return nil, err
		}
		return &box{Space: space}, nil
	}
	br, err := f.lans.bridgeUp(l)
	if err != nil {
		return nil, err
	}
	space, p, err := f.host.NewOn(&br, l.first(true) != nil)
	if err != nil {
		return nil, err
	}
	return &box{Space: space, first: p}, nil
}

// removalOf is how an endpoint's interface is removed; udp tells that flows to
// it may live on in conntrack.
func (f *fitter) removalOf(e *Endpoint, ns *os.File, udp bool) removal {
	l, host := f.lans.get(e.NetworkID), e.HostInterface
	if l != nil && l.driver() != nil {
		host = "" // the driver's own affair
	}
	return removal{host: host, ns: ns, network: l.asks(), after: func() {
		for _, p := range []netip.Prefix{e.Address, e.Address6} {
			if udp && p.IsValid() {
				firewall.ForgetFlowsTo(p.Addr())
			}
		}
		f.giveUp(l, e)
	}}
}

// giveUp takes back what an endpoint has beside its interface.
func (f *fitter) giveUp(l *lan, e *Endpoint) {
	if l == nil {
		return
	}
	if e.Rate != (Rate{}) && e.HostInterface != "" {
		if err := shape.Clear(e.HostInterface); err != nil {
			slog.Warn("what held an interface to its rate is left", "interface", e.HostInterface, "err", err)
		}
	}
	if d := l.driver(); d != nil {
		ctx, cancel := context.WithTimeout(context.Background(), linger)
		defer cancel()
		if e.Exposed {
			f.lans.conceal(ctx, e)
		}
		if err := d.Leave(ctx, l.Network, *e); err != nil {
			slog.Warn("the driver of a network could not take an endpoint back", "network", l.Name, "driver", l.Driver, "endpoint", e.ID, "err", err)
		}
	}
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			l.release(p)
		}
	}
}

// boxOf furnishes somebody's namespace.
func (f *fitter) boxOf(ns *os.File) (*box, error) {
	space, err := f.host.Furnish(ns)
	if err != nil {
		return nil, err
	}
	return &box{Space: space}, nil
}
