package network

import (
	"net/netip"
	"slices"

	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/publish"
)

// rules are the options of the rules; prefixes begin the names of our ports.
func (c Config) rules(prefixes []string) firewall.Options {
	return firewall.Options{Table: c.Name, Ports: prefixes, DirectRouting: c.DirectRouting,
		AcceptMark: c.AcceptMark, AcceptMask: c.AcceptMask, HostFirewall: c.HostFirewall, Off: c.NoRules, Off6: c.NoRules6}
}

func (g segment) ruled() firewall.Network {
	n := firewall.Network{
		ID: g.NetworkID, Name: g.Name, Bridge: g.Bridge, Subnet4: g.Subnet4, Subnet6: g.Subnet6, MAC: g.MAC,
		Internal: g.Internal, ICC: g.ICC, Masquerade: g.Masquerade, Mode4: g.Mode4, Mode6: g.Mode6,
		Source4: g.Source4, Source6: g.Source6, Trusted: g.Trusted, Routers: g.Routers,
	}
	if g.Address4.IsValid() {
		n.Gateway4 = g.Address4.Addr()
	}
	if g.Address6.IsValid() {
		n.Gateway6 = g.Address6.Addr()
	}
	return n
}

// ruled is a sandbox as the firewall sees it.
func ruled(b Sandbox) firewall.Sandbox {
	out := firewall.Sandbox{ID: b.ID, Name: b.Name, Target4: b.target4(), Target6: b.target6()}
	for _, e := range b.Endpoints {
		if e.HostInterface == "" {
			continue // not on a bridge
		}
		p := firewall.Place{Network: e.NetworkID, Port: e.HostInterface, MAC: e.MAC, Addresses: slices.Clone(e.LinkLocal)}
		for _, a := range [...]netip.Prefix{e.Address, e.Address6} {
			if a.IsValid() {
				p.Addresses = append(p.Addresses, a.Addr())
			}
		}
		out.Places = append(out.Places, p)
	}
	for _, p := range b.Ports {
		if p.ContainerPort != 0 && (p.HostPort != 0 || p.HostIP.IsValid()) {
			out.Ports = append(out.Ports, firewall.Port(p))
		}
	}
	return out
}

// target4 and target6 are where the sandbox's published ports lead.
func (b *Sandbox) target4() (t firewall.Target) {
	if e := b.Gateway4(); e != nil && e.Address.IsValid() {
		t = firewall.Target{Network: e.NetworkID, Address: e.Address.Addr()}
	}
	return t
}

func (b *Sandbox) target6() (t firewall.Target) {
	if e := b.Gateway6(); e != nil && e.Address6.IsValid() {
		t = firewall.Target{Network: e.NetworkID, Address: e.Address6.Addr()}
	}
	return t
}

// Relay is a published port whose connections the process that holds its socket
// passes on itself: [::1], since the kernel lets nothing with that address out
// of lo, and IPv6 of containers that have IPv4 alone; all of them where there are
// no rules.
type Relay struct {
	Proto       string
	Host        netip.Addr // what the sockets are bound to
	First, Last uint16     // their ports
	To          netip.AddrPort
	Whole       bool // nothing is led past that process
}

// Relays are those of the sandbox, ports that follow each other as one.
func (b *Sandbox) Relays() (list []Relay) {
	at := publish.Place{To4: b.target4().Address, To6: b.target6().Address, Bare4: b.Bare4, Bare6: b.Bare6}
	for _, p := range b.Ports {
		to := at.To6
		if p.HostIP.Is4() || !to.IsValid() {
			to = at.To4
		}
		if p.HostPort == 0 || p.ContainerPort == 0 || !to.IsValid() || p.Proto == "sctp" || !at.Relayed(p.HostIP) {
			continue
		}
		if n := len(list); n > 0 && list[n-1].continues(p) {
			list[n-1].Last++
			continue
		}
		whole := at.Bare6
		if p.HostIP.Is4() {
			whole = at.Bare4
		}
		list = append(list, Relay{p.Proto, p.HostIP, p.HostPort, p.HostPort, netip.AddrPortFrom(to, p.ContainerPort), whole})
	}
	return list
}

func (r Relay) continues(p Published) bool {
	return r.Proto == p.Proto && r.Host == p.HostIP && int(r.Last)+1 == int(p.HostPort) &&
		int(p.HostPort)-int(r.First) == int(p.ContainerPort)-int(r.To.Port())
}
