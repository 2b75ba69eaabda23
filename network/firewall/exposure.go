package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Exposure is one way in which something of a container can be reached.
type Exposure struct {
	Container, Network string // their names
	// Target is the container's side, "tcp 172.17.0.2:80"; without a port it is
	// all of them.
	Target string
	// At is where the clients connect to, "0.0.0.0:8080".
	At string
	// From is who can.
	From string
	// Rule is what lets them, in nft's words.
	Rule string
}

// relayed stands for the rule of a port that no rule is for.
const relayed = "relay in the container's supervising process"

// Exposures tells who can reach what, by the rules that Rules computes of the
// same. The host itself reaches all containers.
func Exposures(o Options, networks []Network, sandboxes []Sandbox) (list []Exposure) {
	known := map[string]Network{}
	for _, n := range networks {
		known[n.ID] = n
	}
	sandboxes = slices.SortedFunc(slices.Values(sandboxes), func(a, b Sandbox) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range sandboxes {
		list = append(list, o.publications(known, s)...)
		list = append(list, o.direct(known, s)...)
		for _, p := range s.Places {
			list = append(list, o.neighbours(known[p.Network], s, p)...)
		}
	}
	return list
}

// publications are the sandbox's published ports.
func (o Options) publications(known map[string]Network, s Sandbox) (list []Exposure) {
	ports := slices.SortedFunc(slices.Values(s.Ports), comparePorts)
	for i := 0; i < len(ports); {
		p, end := ports[i], i+1
		for end < len(ports) && follows(ports[end-1], ports[end]) {
			end++
		}
		last := ports[end-1]
		i = end
		if p.HostPort == 0 {
			continue // routed: see direct
		}
		f, target := familyOf(p.HostIP), s.target(p)
		e := Exposure{Container: s.Name, At: endpoint(p.HostIP, p.HostPort, last.HostPort), From: o.clients(p.HostIP)}
		if target.Address.IsValid() {
			e.Rule = rule(f, chainPublish, redirection(f, p, runEnd(p, last), target.Address))
		} else {
			target, e.Rule = s.Target4, relayed
		}
		e.Network = known[target.Network].Name
		e.Target = p.Proto + " " + endpoint(target.Address, p.ContainerPort, last.ContainerPort)
		list = append(list, e)
	}
	return list
}

// runEnd is the last port of the element that is shown for ports from p to last.
func runEnd(p, last Port) uint16 {
	if p.HostPort == p.ContainerPort {
		return last.HostPort
	}
	return p.HostPort
}

// follows tells whether b goes on where a ends, on both sides.
func follows(a, b Port) bool {
	return a.HostIP == b.HostIP && a.Proto == b.Proto && a.HostPort != 0 && int(b.HostPort) == int(a.HostPort)+1 && int(b.ContainerPort) == int(a.ContainerPort)+1
}

// clients are those who reach what is published on the host's address.
func (o Options) clients(host netip.Addr) string {
	who := "everyone who reaches the host"
	switch {
	case host.IsLoopback():
		return "this host"
	case !host.IsUnspecified():
		who = "everyone who reaches " + host.String()
	}
	if o.HostFirewall {
		who += ", as far as the host's input rules let them"
	}
	return who
}

// direct are the ports that are reached at the container's own address.
func (o Options) direct(known map[string]Network, s Sandbox) (list []Exposure) {
	for _, e := range o.opened(known, s, slices.SortedFunc(slices.Values(s.Ports), comparePorts)) {
		target := s.Target4
		if e.Family == IP6 {
			target = s.Target6
		}
		n := known[target.Network]
		fields := strings.Split(e.Text, " . ")
		first, last, run := strings.Cut(fields[2], "-")
		at := netip.AddrPortFrom(target.Address, 0).String()
		at = strings.TrimSuffix(at, "0") + first
		if run {
			at += "-" + last
		}
		from := "everyone with a route to the container"
		if e.Set == setDirect {
			from = "hosts behind " + strings.Join(n.Trusted, ", ")
		}
		list = append(list, Exposure{s.Name, n.Name, fields[1] + " " + at, at, from, rule(e.Family, "forward", e)})
	}
	return list
}

// neighbours are those who reach all of a container's ports at a place. With the
// shortcut it is what most of their packets meet, and the rest the rule of IP.
func (o Options) neighbours(n Network, s Sandbox, p Place) (list []Exposure) {
	for _, a := range p.Addresses {
		f := familyOf(a)
		if a.IsLinkLocalUnicast() || !n.subnet(f).Contains(a) {
			continue
		}
		if o.shortcut(n) {
			list = append(list, Exposure{s.Name, n.Name, "tcp and udp " + a.String(), a.String(), "containers on " + n.Name, rule(Netdev, chainShortcut+n.Bridge, p.way(n, a))})
		}
		if n.ICC {
			within := element(f, setWithin, false, []cell{cellName(n.Bridge), cellName(n.Bridge)})
			list = append(list, Exposure{s.Name, n.Name, a.String(), a.String(), "containers on " + n.Name, rule(f, "forward", within)})
		}
		if n.mode(f) == ModeUnprotected && !n.closed(f) {
			open := element(f, setUnprotected, false, []cell{cellName(n.Bridge)})
			list = append(list, Exposure{s.Name, n.Name, a.String(), a.String(), "everyone with a route to the container", rule(f, "forward", open)})
		}
	}
	return list
}

func rule(f Family, chain string, e Element) string {
	return fmt.Sprintf("%s %s @%s { %s }", f, chain, e.Set, e.Text)
}

// endpoint writes an address with one port or a range.
func endpoint(a netip.Addr, first, last uint16) string {
	text := netip.AddrPortFrom(a, first).String()
	if first != last {
		text += fmt.Sprintf("-%d", last)
	}
	return text
}
