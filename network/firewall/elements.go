package firewall

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ofNetwork gives a network's own elements.
func (o Options) ofNetwork(n Network) (out []Element) {
	name := cellName(n.Bridge)
	for _, f := range [...]Family{IP4, IP6} {
		subnet := n.subnet(f)
		if !subnet.IsValid() {
			continue
		}
		add := func(set string, key ...cell) {
			out = append(out, element(f, set, set == setHome || set == setLeaving, key))
		}
		add(setBridges, name)
		add(setHome, cellPrefix(subnet), name)
		if n.ICC {
			add(setWithin, name, name)
		}
		if n.closed(f) {
			add(setInternal, name)
		}
		if n.leaves(f) {
			add(setLeaving, cellPrefix(subnet))
		}
		if n.mode(f) == ModeUnprotected {
			add(setUnprotected, name)
		}
		if n.mode(f) == ModeRouted {
			add(setRouted, name)
		}
		for _, from := range n.Trusted {
			add(setTrusted, cellName(from), name)
		}
	}
	if o.shortcut(n) {
		out = append(out, hook(n, n.Bridge)) // which keeps the chain while it has no ports
	}
	if n.Gateway4.IsValid() {
		out = append(out, element(Bridge, setTaken4, false, []cell{cellAddr(n.Gateway4)}))
	}
	if n.Subnet6.IsValid() {
		for _, a := range append(linkLocal(n.MAC), netip.MustParseAddr("fe80::1"), n.Gateway6) {
			if a.IsValid() {
				out = append(out, element(Bridge, setTaken6, false, []cell{cellAddr(a)}))
			}
		}
	}
	for _, a := range n.Routers {
		out = append(out, element(Bridge, taken(a), false, []cell{cellAddr(a)}))
	}
	return out
}

// taken is the set of addresses that are somebody's, for one of its family.
func taken(a netip.Addr) string {
	if a.Is6() {
		return setTaken6
	}
	return setTaken4
}

// Elements gives a sandbox's elements: its pins, and its published ports. They
// are to be added to the rules of the same networks.
func Elements(o Options, networks []Network, s Sandbox) []Element {
	known := map[string]Network{}
	for _, n := range networks {
		known[n.ID] = n
	}
	return append(o.pins(known, s), o.published(known, s)...)
}

// pins say what the sandbox's interfaces may send: any of its addresses from
// any of them, as Linux does when a container is on several networks.
func (o Options) pins(known map[string]Network, s Sandbox) (out []Element) {
	var addresses []netip.Addr
	for _, p := range s.Places {
		addresses = append(addresses, p.addresses(known)...)
	}
	for _, a := range addresses {
		out = append(out, element(Bridge, taken(a), false, []cell{cellAddr(a)}))
	}
	for _, p := range s.Places {
		n, ok := known[p.Network]
		if !ok {
			continue
		}
		at := []cell{cellName(p.Port), cellMAC(p.MAC)}
		out = append(out, element(Bridge, setMACs, false, at))
		for _, a := range addresses {
			set := setPins4
			if a.Is6() {
				set = setPins6
			}
			out = append(out, element(Bridge, set, false, append(slices.Clip(at), cellAddr(a))))
		}
		if !n.ICC {
			out = append(out, element(Bridge, setClosed, false, at[:1]),
				element(Bridge, setDoors, false, []cell{at[0], cellMAC(n.MAC)}))
		}
		if o.shortcut(n) {
			out = append(out, p.shortcuts(n, addresses, p.addresses(known))...)
		}
	}
	return out
}

// addresses are the place's, that of the link among them.
func (p Place) addresses(known map[string]Network) []netip.Addr {
	if !known[p.Network].Subnet6.IsValid() {
		return p.Addresses
	}
	return append(slices.Clone(p.Addresses), linkLocal(p.MAC)...)
}

// linkLocal is the address that the kernel makes of a MAC address, RFC 4291
// appendix A.
func linkLocal(mac string) []netip.Addr {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 {
		return nil
	}
	return []netip.Addr{netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: hw[0] ^ 2, 9: hw[1], 10: hw[2], 11: 0xff, 12: 0xfe, 13: hw[3], 14: hw[4], 15: hw[5]})}
}

// published gives the elements of the sandbox's ports, a run of equal ports as
// one.
func (o Options) published(known map[string]Network, s Sandbox) (out []Element) {
	ports := slices.SortedFunc(slices.Values(s.Ports), comparePorts)
	for i := 0; i < len(ports); {
		p, end := ports[i], i+1
		for end < len(ports) && continues(ports[end-1], ports[end]) {
			end++
		}
		target := s.target(p)
		n, ok := known[target.Network]
		f := familyOf(p.HostIP)
		if ok && target.Address.IsValid() && familyOf(target.Address) == f {
			if mode := n.mode(f); mode == ModeNAT || mode == ModeUnprotected {
				out = append(out, redirection(f, p, ports[end-1].HostPort, target.Address))
			}
		}
		i = end
	}
	return append(out, o.opened(known, s, ports)...)
}

func comparePorts(a, b Port) int {
	if c := a.HostIP.Compare(b.HostIP); c != 0 {
		return c
	}
	if c := strings.Compare(a.Proto, b.Proto); c != 0 {
		return c
	}
	return int(a.HostPort) - int(b.HostPort)
}

// continues tells whether b follows a in a run of equal ports.
func continues(a, b Port) bool {
	return a.HostIP == b.HostIP && a.Proto == b.Proto && int(b.HostPort) == int(a.HostPort)+1 &&
		a.HostPort == a.ContainerPort && b.HostPort == b.ContainerPort
}

// redirection sends the host's ports from p to last to the address. A run keeps
// its ports.
func redirection(f Family, p Port, last uint16, to netip.Addr) Element {
	run := last != p.HostPort
	key := []cell{cellProto(p.Proto), cellPorts(p.HostPort, last)}
	value := []cell{cellAddr(to)}
	set := setPorts
	switch {
	case run && p.HostIP.IsUnspecified():
		set = setRanges
	case run:
		set = setAddressRanges
	case !p.HostIP.IsUnspecified():
		set = setAddressPorts
	}
	if !run {
		value = append(value, cellPort(p.ContainerPort))
	}
	if !p.HostIP.IsUnspecified() {
		key = append([]cell{cellAddr(p.HostIP)}, key...)
	}
	return element(f, set, run, key, value...)
}

// opened gives the elements of the ports that are reached at the container's own
// address. Runs are of the container's ports here.
func (o Options) opened(known map[string]Network, s Sandbox, ports []Port) (out []Element) {
	type service struct {
		target Target
		proto  string
		port   uint16
	}
	var list []service
	for _, p := range ports {
		t := s.target(p)
		n, ok := known[t.Network]
		if !ok || !t.Address.IsValid() {
			continue
		}
		if o.DirectRouting || len(n.Trusted) > 0 || n.mode(familyOf(t.Address)) == ModeRouted {
			list = append(list, service{t, p.Proto, p.ContainerPort})
		}
	}
	slices.SortFunc(list, func(a, b service) int {
		if c := a.target.Address.Compare(b.target.Address); c != 0 {
			return c
		}
		if c := strings.Compare(a.proto, b.proto); c != 0 {
			return c
		}
		return int(a.port) - int(b.port)
	})
	list = slices.Compact(list)
	for i := 0; i < len(list); {
		first, end := list[i], i+1
		for end < len(list) && list[end].target == first.target && list[end].proto == first.proto && list[end].port == list[end-1].port+1 {
			end++
		}
		f := familyOf(first.target.Address)
		key := []cell{cellAddr(first.target.Address), cellProto(first.proto), cellPorts(first.port, list[end-1].port)}
		n := known[first.target.Network]
		if o.DirectRouting || n.mode(f) == ModeRouted {
			out = append(out, element(f, setOpen, true, key))
		}
		if len(n.Trusted) > 0 {
			out = append(out, element(f, setDirect, true, key))
		}
		i = end
	}
	return out
}

// Diff tells which elements are only in the one list and which in the other.
func Diff(before, after []Element) (gone, come []Element) {
	return Without(before, after), Without(after, before)
}

// Without gives the elements of a list that are not in the other.
func Without(list, other []Element) (out []Element) {
	known := make(map[string]bool, len(other))
	for _, e := range other {
		known[e.id()] = true
	}
	for _, e := range list {
		if !known[e.id()] {
			out = append(out, e)
		}
	}
	return out
}

// id is the same for elements that are.
func (e Element) id() string { return e.Family.String() + " " + e.Set + " " + e.Text }

// place is the same for those of which a set can have one.
func (e Element) place() string {
	return e.Family.String() + " " + e.Set + " " + string(e.key) + string(e.end)
}
