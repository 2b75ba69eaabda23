package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/link"
	"github.com/tarehq/tare/network/shape"
)

// Attach gives a container a network namespace with a place on each of the
// networks that it wants, and publishes its ports. After an error nothing of it
// is left. The kinds are NotFound for an unknown network, Invalid and
// NotImplemented for what cannot be, Unavailable when the addresses are
// exhausted, Forbidden for a requested address that is taken, Internal for a port
// that is taken (Docker's status 500).
func (s *Service) Attach(ctx context.Context, r Request) (*Attachment, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.tasks.Done()
	if err := CheckPorts(r.Ports); err != nil {
		return nil, err
	}
	lans, err := s.lans.join(r.Wants)
	if err != nil {
		return nil, setUpError(err)
	}
	defer s.lans.unjoin(lans)
	if err := s.reviveAll(ctx, lans); err != nil {
		return nil, setUpError(err)
	}
	a, err := s.attach(ctx, r, lans)
	if err != nil {
		return nil, setUpError(err)
	}
	for _, l := range lans {
		s.wantPool(ctx, l)
	}
	return a, nil
}

func setUpError(err error) error {
	return fault.New(fault.KindOf(err), "failed to set up container networking: %w", err)
}

// begin counts an operation that Close has to wait for.
func (s *Service) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fault.New(fault.Unavailable, "the networks are closed")
	case !s.restored:
		return fault.New(fault.Internal, "networks: restore must come before attach")
	}
	s.tasks.Add(1)
	return nil
}

func (s *Service) attach(ctx context.Context, r Request, lans []*lan) (_ *Attachment, err error) {
	a := &Attachment{Sandbox: Sandbox{ID: newID(), ContainerID: r.ContainerID, Name: r.Name, Hostname: r.Hostname, Domainname: r.Domainname, DNS: r.DNS}}
	var b *box
	defer func() {
		if err != nil {
			s.takeBack(a, b, lans)
		}
	}()
	if len(lans) > 0 && r.NetNS == nil {
		b = s.spareFor(lans[0], r.Wants[0])
	}
	for i, w := range r.Wants {
		var e Endpoint
		if i == 0 && b != nil && b.waiting != nil {
			e, err = s.occupy(b, lans[0], w, &a.Sandbox)
		} else {
			e, err = s.place(lans[i], w, &a.Sandbox)
		}
		if err != nil {
			return nil, err
		}
		a.Endpoints = append(a.Endpoints, e)
	}
	if err = s.reservePorts(a, r.Ports); err != nil {
		return nil, err
	}
	if b, err = s.equip(ctx, lans, &a.Sandbox, b, r.NetNS); err != nil {
		return nil, err
	}
	if a.NetNS, err = b.Share(); err != nil {
		return nil, err
	}
	if err = s.name(ctx, a, b); err != nil {
		return nil, err
	}
	if err = s.lans.moveGate(ctx, &a.Sandbox); err != nil {
		return nil, err
	}
	if err = s.rules.publish(a.Sandbox, b); err != nil {
		return nil, s.connectivityError(a.Sandbox, err)
	}
	for i := range a.Endpoints {
		b.announce(&a.Endpoints[i])
	}
	s.hold(a.ID, b)
	return a, nil
}

// takeBack undoes what there is of an attachment. Its addresses stay out of use
// until the interfaces that have them are gone.
func (s *Service) takeBack(a *Attachment, b *box, lans []*lan) {
	closeAll(a.Sockets)
	if a.NetNS != nil {
		a.NetNS.Close()
	}
	if s.names != nil {
		s.names.Drop(a.ID)
	}
	if b == nil {
		for i := range a.Endpoints {
			s.remover.doom(removal{network: lans[i].asks(), after: func() { s.giveUp(lans[i], &a.Endpoints[i]) }})
		}
		return
	}
	s.abandon(b, a.Endpoints)
}

// place takes what an endpoint needs that is not the kernel's: addresses, names.
func (s *Service) place(l *lan, w Want, b *Sandbox) (e Endpoint, err error) {
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
			s.giveUp(&lan{nets: l.subnets()}, &e)
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
		p, n, err := s.takeAddress(l, v6, wanted, mac)
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
func (s *Service) takeAddress(l *lan, v6 bool, wanted netip.Addr, mac string) (netip.Prefix, *subnet, error) {
	p, n, err := l.take(v6, wanted, mac)
	if errors.Is(err, fault.Forbidden) || errors.Is(err, fault.Unavailable) {
		s.drain(l)
		s.remover.settle(l.ID)
		p, n, err = l.take(v6, wanted, mac)
	}
	return p, n, err
}

// reservePorts binds the sockets of the ports if they can be published, and
// remembers them if they cannot be yet.
func (s *Service) reservePorts(a *Attachment, ports []Port) (err error) {
	if len(ports) == 0 {
		return nil
	}
	if !a.Sandbox.publishes() {
		a.Pending = ports
		return nil
	}
	if a.Ports, a.Sockets, err = s.reserve(ports, &a.Sandbox); err != nil {
		return s.connectivityError(a.Sandbox, err)
	}
	a.Pending = nil
	return nil
}

// equip gives the sandbox a namespace with an interface for each endpoint: b, if
// it is one that waited, or the one that was asked for, ns. On failure b is still the
// caller's.
func (s *Service) equip(ctx context.Context, lans []*lan, sb *Sandbox, b *box, ns *os.File) (_ *box, err error) {
	switch {
	case b != nil && b.waiting != nil:
		return b, s.plugAll(ctx, b, lans, sb, 1)
	case b != nil:
		err := s.plugAll(ctx, b, lans, sb, 0)
		if err == nil {
			return b, nil
		}
		// Somebody may have deleted its interface while it waited.
		s.discard(b, sb)
		if len(lans) > 1 {
			return nil, err
		}
	}
	if ns != nil {
		b, err = s.boxOf(ns)
	} else {
		b, err = s.makeBox(nil)
	}
	if err != nil {
		return nil, err
	}
	if err := s.plugAll(ctx, b, lans, sb, 0); err != nil {
		s.discard(b, sb)
		return nil, err
	}
	return b, nil
}

// plugAll makes the sandbox's interfaces from the i-th on.
func (s *Service) plugAll(ctx context.Context, b *box, lans []*lan, sb *Sandbox, from int) error {
	for i := from; i < len(sb.Endpoints); i++ {
		if err := s.plug(ctx, b, lans[i], sb, i); err != nil {
			return err
		}
	}
	return nil
}

// plug makes the interface of the sandbox's i-th endpoint, with its default
// routes if it has them among all.
func (s *Service) plug(ctx context.Context, b *box, l *lan, sb *Sandbox, i int) error {
	e := &sb.Endpoints[i]
	p, made, err := s.makePort(ctx, b, l, sb, i)
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
func (s *Service) makePort(ctx context.Context, b *box, l *lan, sb *Sandbox, i int) (*link.Port, Link, error) {
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
		if br, err = s.lans.bridgeUp(l); err == nil {
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

// name tells the names of a new sandbox.
func (s *Service) name(ctx context.Context, a *Attachment, b *box) error {
	if s.names == nil {
		return nil
	}
	prepared := b.prepared
	b.prepared = nil
	held, err := s.names.Set(ctx, a.Sandbox, b.NS, prepared)
	a.Sockets = append(a.Sockets, held...)
	return err
}

// hold keeps the namespace open, or the kernel would end it, alone and at once,
// when the container ends.
func (s *Service) hold(sandboxID string, b *box) {
	b.closeRest()
	s.sandboxes.hold(sandboxID, b.NS)
	s.remover.signal()
}

// discard abandons a namespace whose interfaces may have the endpoints'
// addresses already: they must not answer for them beside those that get them.
func (s *Service) discard(b *box, sb *Sandbox) {
	for i := range sb.Endpoints {
		e := &sb.Endpoints[i]
		if !s.host.Ours(e.HostInterface) {
			continue
		}
		s.host.Down(e.HostInterface)
		if e.Rate != (Rate{}) {
			_ = shape.Clear(e.HostInterface) // else the next start's
		}
		s.remover.doom(removal{host: e.HostInterface})
		e.HostInterface = ""
	}
	s.abandon(b, nil)
}

// abandon leaves a namespace to the remover, with the endpoints in it.
func (s *Service) abandon(b *box, endpoints []Endpoint) {
	b.closeRest()
	if b.waiting != nil {
		if endpoints == nil {
			endpoints = b.waiting.Endpoints
		}
		s.sandboxes.unwait(b.waiting, s.rules.elements(*b.waiting))
	}
	ns := b.NS
	if b.first != nil {
		s.remover.doom(removal{host: b.first.Host, ns: ns})
		ns = nil
	}
	for i := range endpoints {
		s.remover.doom(s.removalOf(&endpoints[i], ns, false))
		ns = nil
	}
	if ns != nil {
		s.remover.doom(removal{ns: ns})
	}
}

func (s *Service) connectivityError(b Sandbox, err error) error {
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", b.Name, b.Endpoints[0].ID, err)
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}
