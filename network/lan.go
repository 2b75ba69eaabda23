package network

import (
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/ipam"
)

// lan is a network as it is carried out on this host.
type lan struct {
	record // as stored; not changed once others see the lan
	opts   bridgeOptions

	moved atomic.Bool // addresses were taken since the cursors were stored

	// A network that could not be made gets them later.
	mu   sync.Mutex // guards what follows; nothing else is locked under it
	made Driver     // nil for bridge, host and null
	nets []subnet   // in the order of IPAM.Config; itself never changed

	// Guarded by the lock of lans:
	state   lanState
	bridge  *bridge // nil unless the driver is bridge and it is up
	failure error   // why it is not up
	joining int     // attachments that are under way

	pool *pool // namespaces that wait; nil for none; guarded by the lock of pools
}

// lanState is a lan's life: its name is taken from the first on, it is seen when
// it is up, and nobody joins it when it leaves.
type lanState int

const (
	lanMaking lanState = iota
	lanUp
	lanLeaving
)

// subnet is one of a lan's, with the containers' way out.
type subnet struct {
	source
	gateway netip.Addr // of the host, the bridge's own; the zero Addr for none
	router  netip.Addr // what containers use instead, if valid
}

// source gives out a subnet's addresses: an ipam.Subnet, or a driver of
// addresses.
type source interface {
	Prefix() netip.Prefix
	Next() (netip.Addr, error)
	Claim(netip.Addr) error
	Release(netip.Addr)
	Drop()
}

// driver makes the lan, nil for bridge, host and null.
func (l *lan) driver() Driver {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made
}

func (l *lan) setDriver(d Driver) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made = d
}

func (l *lan) subnets() []subnet {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nets
}

func (l *lan) setSubnets(nets []subnet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nets = nets
}

// asks gives the lan's ID if giving an endpoint up means asking a driver of it,
// of addresses or other.
func (l *lan) asks() string {
	if l == nil {
		return ""
	}
	distant := slices.ContainsFunc(l.subnets(), func(n subnet) bool { _, is := n.source.(*elsewhere); return is })
	if l.driver() != nil || distant {
		return l.ID
	}
	return ""
}

// predefined tells whether the network comes with the daemon.
func predefined(name string) bool {
	switch name {
	case networkBridge, networkHost, networkNone, "default":
		return true
	}
	return false
}

// joinable tells why nobody can join.
func (l *lan) joinable() error {
	switch {
	case l.ConfigOnly:
		return fault.New(fault.Forbidden, "cannot create endpoint on configuration-only network")
	case l.Driver == networkHost || l.Driver == driverNull:
		return fault.New(fault.Invalid, "network %s has no endpoints", l.Name)
	}
	return nil
}

// first gives the lan's first subnet of the family, nil if it has none.
func (l *lan) first(v6 bool) *subnet {
	nets := l.subnets()
	for i := range nets {
		if nets[i].Prefix().Addr().Is6() == v6 {
			return &nets[i]
		}
	}
	return nil
}

// take takes an address of the family, a certain one if wanted is valid. The
// words are Docker's.
func (l *lan) take(v6 bool, wanted netip.Addr, mac string) (netip.Prefix, *subnet, error) {
	l.moved.Store(true)
	nets := l.subnets()
	for i := range nets {
		n := &nets[i]
		if n.Prefix().Addr().Is6() != v6 || wanted.IsValid() && !n.Prefix().Contains(wanted) {
			continue
		}
		if from, ok := n.source.(*elsewhere); ok {
			a, err := from.takeFor(wanted, mac)
			return netip.PrefixFrom(a, n.Prefix().Bits()), n, err
		}
		if wanted.IsValid() {
			return netip.PrefixFrom(wanted, n.Prefix().Bits()), n, n.Claim(wanted)
		}
		if a, err := n.Next(); err == nil {
			return netip.PrefixFrom(a, n.Prefix().Bits()), n, nil
		} else if fault.KindOf(err) != fault.Unavailable {
			return netip.Prefix{}, nil, err
		}
	}
	if wanted.IsValid() {
		return netip.Prefix{}, nil, fault.New(fault.Invalid, "invalid address %s: It does not belong to any of this network's subnets", wanted)
	}
	family := 4
	if v6 {
		family = 6
	}
	return netip.Prefix{}, nil, fault.New(fault.Unavailable, "no available IPv%d addresses on this network's address pools: %s (%s)", family, l.Name, l.ID)
}

// release gives an address back.
func (l *lan) release(p netip.Prefix) {
	nets := l.subnets()
	for i := range nets {
		if nets[i].Prefix() == p.Masked() {
			nets[i].Release(p.Addr())
		}
	}
}

// needsMAC tells whether the lan's addresses are given to MAC addresses.
func (l *lan) needsMAC() bool {
	for _, n := range l.subnets() {
		if from, ok := n.source.(*elsewhere); ok {
			return from.byMAC()
		}
	}
	return false
}

// adopt claims an address that a container has, unless a driver gave it out, who
// knows of it. After a change of the subnet
// the containers that run keep their old ones, which are nobody's here.
func (l *lan) adopt(p netip.Prefix) {
	nets := l.subnets()
	for i := range nets {
		if _, ours := nets[i].source.(*ipam.Subnet); ours && nets[i].Prefix().Contains(p.Addr()) {
			_ = nets[i].Claim(p.Addr())
		}
	}
}

// cursors tell where the addresses go on, resume has them go on there.
func (l *lan) cursors() (out []netip.Addr) {
	for _, n := range l.subnets() {
		if s, ok := n.source.(*ipam.Subnet); ok {
			out = append(out, s.Cursor())
		}
	}
	return out
}

func (l *lan) resume(cursors []netip.Addr) {
	for _, n := range l.subnets() {
		s, ok := n.source.(*ipam.Subnet)
		if !ok {
			continue
		}
		var cursor netip.Addr
		for _, c := range cursors { // the first one that is its own
			if s.Prefix().Contains(c) && !cursor.IsValid() {
				cursor = c
			}
		}
		s.Resume(cursor)
	}
}

// dropSubnets gives the subnets back.
func (l *lan) dropSubnets() {
	for _, n := range l.subnets() {
		n.Drop()
	}
}

// gateways are where containers' default routes lead; a network that is
// internal or isolated has none.
func (l *lan) gateway(n *subnet) netip.Addr {
	switch {
	case n == nil || l.Internal:
		return netip.Addr{}
	case n.router.IsValid():
		return n.router
	}
	return n.gateway
}

// mode is the gateway mode of the family.
func (o *bridgeOptions) mode(v6 bool) string {
	if v6 {
		return o.mode6
	}
	return o.mode4
}

// own gives the bridge's own address of the family, invalid for none.
func (l *lan) own(v6 bool) netip.Prefix {
	n := l.first(v6)
	if n == nil || !n.gateway.IsValid() || l.opts.mode(v6) == modeIsolated || !v6 && l.opts.inhibit4 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(n.gateway, n.Prefix().Bits())
}

// segment is the lan, whose bridge is up, as the rules see it.
func (l *lan) segment() segment {
	g := segment{
		NetworkID: l.ID, Name: l.Name, Bridge: l.Bridge, MAC: l.bridge.Found, Address4: l.own(false), Address6: l.own(true),
		Internal: l.Internal, ICC: l.opts.icc, Masquerade: l.opts.masquerade, Mode4: l.opts.mode4, Mode6: l.opts.mode6,
		Bind4: l.opts.bind4, Bind6: l.opts.bind6, Source4: l.opts.host4, Source6: l.opts.host6, Trusted: l.opts.trusted,
	}
	if n := l.first(false); n != nil {
		g.Subnet4 = n.Prefix()
	}
	if n := l.first(true); n != nil {
		g.Subnet6 = n.Prefix()
	}
	for _, v6 := range []bool{false, true} {
		if a := l.gateway(l.first(v6)); a.IsValid() && a != l.own(v6).Addr() {
			g.Routers = append(g.Routers, a)
		}
	}
	return g
}

// dnsNames are a container's names on the lan, in Docker's order; the default
// bridge has none.
func (l *lan) dnsNames(b *Sandbox, aliases []string) []string {
	if predefined(l.Name) {
		return nil
	}
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add(b.Name)
	for _, a := range aliases {
		add(a)
	}
	add(b.ContainerID[:min(12, len(b.ContainerID))])
	add(b.Hostname)
	return names
}

// macFor gives an interface's MAC address: the one asked for, or one that
// follows from the IP address, so that an address that is taken again has the
// same MAC and no neighbour's knowledge is ever stale.
func macFor(wanted string, v4, v6 netip.Addr) (string, error) {
	if wanted != "" {
		mac, err := net.ParseMAC(wanted)
		if err != nil || len(mac) != 6 {
			return "", fault.New(fault.Invalid, "invalid MAC address %q", wanted)
		}
		return mac.String(), nil
	}
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	switch {
	case v4.IsValid():
		copy(mac[2:], v4.AsSlice())
	case v6.IsValid():
		// The other half of the locally administered addresses, lest it be an
		// IPv4 address's.
		b := v6.As16()
		mac[0], mac[1] = 0x06, 0x42
		copy(mac[2:], b[12:])
	default:
		rand.Read(mac[2:])
	}
	return mac.String(), nil
}

// describe is the network as clients see it.
func (l *lan) describe() wire.Network {
	n := l.Network
	n.IPAM.Config = slices.Clone(n.IPAM.Config)
	if n.IPAM.Config == nil && n.Driver != wire.NetworkHost && n.Driver != driverNull {
		n.IPAM.Config = []wire.IPAMConfig{}
	}
	return n
}
