package firewall

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The sets of a table of the family ip or ip6.
const (
	setPorts         = "ports"          // proto . port -> address . port
	setAddressPorts  = "address_ports"  // host address . proto . port -> address . port
	setRanges        = "ranges"         // proto . ports -> address
	setAddressRanges = "address_ranges" // host address . proto . ports -> address
	setBridges       = "bridges"        // all of them
	setWithin        = "within"         // bridge . bridge, of those whose containers reach each other
	setInternal      = "internal"       // bridges into and out of which nothing passes
	setHome          = "home"           // subnet . its bridge
	setLeaving       = "leaving"        // subnets that leave under the host's address
	setUnprotected   = "unprotected"    // bridges into which all may
	setRouted        = "routed"         // bridges whose containers are reached at their own addresses
	setOpen          = "open"           // address . proto . ports that are reached there
	setTrusted       = "trusted"        // interface . bridge into which it reaches published ports
	setDirect        = "direct"         // address . proto . ports that it reaches
)

// The chains that are jumped to.
const (
	chainPublish = "publish"
	chainPort    = "port"
	chainShut    = "shut"
	chainARP     = "arp"
	chainIP4     = "ipv4"
	chainIP6     = "ipv6"
	chainAdvert  = "advert"
)

// Rules computes the wanted tables. A family that no network has is without one.
func Rules(o Options, networks []Network, sandboxes []Sandbox) Ruleset {
	networks = slices.SortedFunc(slices.Values(networks), func(a, b Network) int { return strings.Compare(a.Bridge, b.Bridge) })
	sandboxes = slices.SortedFunc(slices.Values(sandboxes), func(a, b Sandbox) int { return strings.Compare(a.ID, b.ID) })
	r := Ruleset{Name: o.Table}
	var elements []Element
	for _, n := range networks {
		elements = append(elements, o.ofNetwork(n)...)
	}
	for _, s := range sandboxes {
		elements = append(elements, Elements(o, networks, s)...)
	}
	for _, f := range [...]Family{IP4, IP6} {
		if f == IP4 && o.Off || f == IP6 && o.Off6 {
			continue
		}
		t := o.family(f, networks)
		if f == IP6 && !slices.ContainsFunc(networks, func(n Network) bool { return n.subnet(f).IsValid() }) {
			continue
		}
		r.Tables = append(r.Tables, t)
	}
	if !o.Off {
		r.Tables = append(r.Tables, o.frames(networks))
	}
	if t, wanted := o.shortcuts(networks); wanted {
		r.Tables = append(r.Tables, t)
	}
	r.fill(elements)
	return r
}

// fill puts the elements into their sets, each once; of two with one key the
// first stays. One whose set is not wanted has no rule that would look for it.
func (r *Ruleset) fill(elements []Element) {
	type place struct {
		family Family
		set    string
	}
	lists := map[place]*[]Element{}
	for i := range r.Tables {
		t := &r.Tables[i]
		for j := range t.Sets {
			lists[place{t.Family, t.Sets[j].Name}] = &t.Sets[j].Elements
		}
		for j := range t.Chains {
			lists[place{t.Family, t.Chains[j].Name}] = &t.Chains[j].Devices
		}
	}
	seen := map[string]bool{}
	for _, e := range elements {
		if list := lists[place{e.Family, e.Set}]; list != nil && !seen[e.place()] {
			seen[e.place()] = true
			*list = append(*list, e)
		}
	}
}

// features are what at least one network of a family wants.
type features struct{ internal, unprotected, routed, open, trusted, closed bool }

func (o Options) features(f Family, networks []Network) (has features) {
	for _, n := range networks {
		has.closed = has.closed || !n.ICC
		if f != Bridge && !n.subnet(f).IsValid() {
			continue
		}
		has.internal = has.internal || n.closed(f)
		has.unprotected = has.unprotected || n.mode(f) == ModeUnprotected
		has.routed = has.routed || n.mode(f) == ModeRouted
		has.open = has.open || n.mode(f) == ModeRouted || o.DirectRouting
		has.trusted = has.trusted || len(n.Trusted) > 0
	}
	return has
}

// family is the table of ip or ip6, with empty sets.
func (o Options) family(f Family, networks []Network) Table {
	a, has := kindAddr(f), o.features(f, networks)
	t := Table{Family: f, Name: o.Table, Sets: []Set{
		{Name: setPorts, Key: []kind{kindProto, kindService}, Value: []kind{a, kindService}},
		{Name: setAddressPorts, Key: []kind{a, kindProto, kindService}, Value: []kind{a, kindService}},
		{Name: setRanges, Key: []kind{kindProto, kindService}, Value: []kind{a}, Interval: true},
		{Name: setAddressRanges, Key: []kind{a, kindProto, kindService}, Value: []kind{a}, Interval: true},
		{Name: setBridges, Key: []kind{kindName}},
		{Name: setWithin, Key: []kind{kindName, kindName}},
		{Name: setHome, Key: []kind{a, kindName}, Interval: true},
		{Name: setLeaving, Key: []kind{a}, Interval: true},
	}}
	service := []kind{a, kindProto, kindService}
	for _, s := range []struct {
		wanted bool
		set    Set
	}{
		{has.internal, Set{Name: setInternal, Key: []kind{kindName}}},
		{has.unprotected, Set{Name: setUnprotected, Key: []kind{kindName}}},
		{has.routed, Set{Name: setRouted, Key: []kind{kindName}}},
		{has.open, Set{Name: setOpen, Key: service, Interval: true}},
		{has.trusted, Set{Name: setTrusted, Key: []kind{kindName, kindName}}},
		{has.trusted, Set{Name: setDirect, Key: service, Interval: true}},
	} {
		if s.wanted {
			t.Sets = append(t.Sets, s.set)
		}
	}
	t.Chains = append(t.Chains, o.redirecting(f)...)
	t.Chains = append(t.Chains, leaving(f, networks), o.forward(f, has))
	return t
}

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// redirecting are the chains that send what arrives at a published port on to
// its container.
func (o Options) redirecting(f Family) []Chain {
	port, to := []field{l4proto, thDport}, daddr(f)
	publish := Chain{Name: chainPublish, Rules: []Rule{
		when(redirect(f, setAddressPorts, true, to, l4proto, thDport)),
		when(redirect(f, setPorts, true, port...)),
		when(redirect(f, setAddressRanges, false, to, l4proto, thDport)),
		when(redirect(f, setRanges, false, port...)),
	}}
	arriving, own := []match{toHost}, []match{toHost}
	chains := []Chain{publish}
	if f == IP4 {
		notLo := notNamed(iifname, "lo")
		chains = append(chains, hooked("raw", "filter", "prerouting", "raw", []Rule{
			// Every packet passes here: first what the kernel compares inline.
			when(drop, within(to, loopback4), notLo),
			when(drop, within(saddr(f), loopback4), notLo),
		}))
	} else {
		// What the host sends to ::1 cannot leave lo: the port's own socket
		// answers it, see the relay of the supervising process.
		own = append([]match{outside(to, loopback6)}, own...)
	}
	if o.HostFirewall {
		chains = append(chains, o.admit(f))
		arriving = append([]match{named(iifname, admitEnd)}, arriving...)
	}
	return append(chains,
		hooked("prerouting", "nat", "prerouting", "dstnat", []Rule{when(jump(chainPublish), arriving...)}),
		hooked("output", "nat", "output", "-100", []Rule{when(jump(chainPublish), own...)}))
}

// leaving chooses under which address packets leave.
func leaving(f Family, networks []Network) Chain {
	from := saddr(f)
	// A host's own connection to a bridge's address has a source in the
	// subnet too.
	rules := []Rule{when(accept, named(oifname, "lo"))}
	if f == IP4 {
		rules = append(rules, when(masquerade, within(from, loopback4), in(setBridges, oifname)))
	}
	rules = append(rules,
		when(masquerade, in(setHome, from, oifname), redirected),
		when(accept, in(setHome, from, oifname)))
	for _, n := range networks {
		if a := n.source(f); a.IsValid() && n.leaves(f) {
			rules = append(rules, when(leaveAs(a), within(from, n.subnet(f))))
		}
	}
	rules = append(rules, when(masquerade, in(setLeaving, from)))
	return hooked("postrouting", "nat", "postrouting", "srcnat", rules)
}

// leaves tells whether the network's containers leave under the host's address.
func (n Network) leaves(f Family) bool {
	mode := n.mode(f)
	return n.Masquerade && !n.closed(f) && (mode == ModeNAT || mode == ModeUnprotected)
}

// forward decides what passes from one interface to another.
func (o Options) forward(f Family, has features) Chain {
	rules := []Rule{
		when(accept, established),
		when(accept, in(setWithin, iifname, oifname)),
	}
	if has.internal {
		rules = append(rules, when(drop, in(setInternal, iifname)), when(drop, in(setInternal, oifname)))
	}
	if o.AcceptMask != 0 {
		rules = append(rules, when(accept, marked(o.AcceptMark, o.AcceptMask), in(setBridges, oifname)))
	}
	rules = append(rules, when(accept, redirected))
	if has.routed { // what a router's neighbours need to find out its ways
		icmp := transport("icmp", unix.IPPROTO_ICMP)
		if f == IP6 {
			icmp = transport("ipv6-icmp", unix.IPPROTO_ICMPV6)
		}
		rules = append(rules, when(accept, icmp, in(setRouted, oifname)))
	}
	service := []field{daddr(f), l4proto, thDport}
	if has.open {
		rules = append(rules, when(accept, in(setOpen, service...)))
	}
	if has.trusted {
		rules = append(rules, when(accept, in(setTrusted, iifname, oifname), in(setDirect, service...)))
	}
	if has.unprotected {
		rules = append(rules, when(accept, notIn(setBridges, iifname), in(setUnprotected, oifname)))
	}
	return hooked("forward", "filter", "forward", "filter", append(rules, when(drop, in(setBridges, oifname))))
}

// The sets of the table of the family bridge.
const (
	setMACs   = "macs"   // port . MAC address that it has
	setPins4  = "pins4"  // port . MAC address . address
	setPins6  = "pins6"  //
	setTaken4 = "taken4" // addresses that are somebody's
	setTaken6 = "taken6" //
	setClosed = "closed" // ports that reach the bridge alone
	setDoors  = "doors"  // port . the bridge's MAC address
)

// Ports of DHCP's clients, and what a neighbour must not say in ICMPv6.
const (
	dhcp4Client, dhcp6Client = 68, 546

	routerSolicit, routerAdvert, neighbourSolicit, neighbourAdvert, redirectMessage, listenerReport = 133, 134, 135, 136, 137, 143
)

var broadcast = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frames is the table of the family bridge, with empty sets. It needs neither
// br_netfilter nor connection tracking. An address that is nobody's may be used
// by any container: some give out more of the subnet than the engine does.
func (o Options) frames(networks []Network) Table {
	has := o.features(Bridge, networks)
	t := Table{Family: Bridge, Name: o.Table, Sets: []Set{
		{Name: setMACs, Key: []kind{kindName, kindMAC}},
		{Name: setPins4, Key: []kind{kindName, kindMAC, kindAddr4}},
		{Name: setTaken4, Key: []kind{kindAddr4}},
		{Name: setPins6, Key: []kind{kindName, kindMAC, kindAddr6}},
		{Name: setTaken6, Key: []kind{kindAddr6}},
	}}
	arp, ip4, ip6 := frame("arp", unix.ETH_P_ARP), frame("ip", unix.ETH_P_IP), frame("ip6", unix.ETH_P_IPV6)
	port := Chain{Name: chainPort, Rules: []Rule{when(drop, notIn(setMACs, iifname, etherSrc))}}
	// Most frames are asked for nothing more than this: what has a pin has its
	// own MAC address too, and TCP nothing to forbid besides.
	plain := []match{ip4, transport("tcp", unix.IPPROTO_TCP)}
	if has.closed {
		t.Sets = append(t.Sets, Set{Name: setClosed, Key: []kind{kindName}}, Set{Name: setDoors, Key: []kind{kindName, kindMAC}})
		t.Chains = append(t.Chains, Chain{Name: chainShut, Rules: []Rule{
			when(back, in(setDoors, iifname, etherDst)),
			when(back, arp, is(etherDst, "ff:ff:ff:ff:ff:ff", broadcast)),
			when(back, ip6, transport("ipv6-icmp", unix.IPPROTO_ICMPV6), icmp6("nd-router-solicit", routerSolicit)),
			when(back, ip6, transport("ipv6-icmp", unix.IPPROTO_ICMPV6), icmp6("nd-neighbor-solicit", neighbourSolicit)),
			when(back, ip6, transport("ipv6-icmp", unix.IPPROTO_ICMPV6), icmp6("mld2-listener-report", listenerReport)),
			when(drop),
		}})
		port.Rules = append(port.Rules, when(jump(chainShut), in(setClosed, iifname)))
		plain = append(plain, notIn(setClosed, iifname))
	}
	port.Rules = append(port.Rules, when(enter(chainARP), arp), when(enter(chainIP4), ip4), when(enter(chainIP6), ip6),
		// What has a tag behind its first one. Whoever receives takes off all
		// empty tags, and would find there what is dropped above.
		when(drop, frame("8021q", unix.ETH_P_8021Q)), when(drop, frame("8021ad", unix.ETH_P_8021AD)))
	udp, icmp := transport("udp", unix.IPPROTO_UDP), transport("ipv6-icmp", unix.IPPROTO_ICMPV6)
	frames := Chain{Name: "frames", Type: "filter", Hook: "prerouting", Priority: "dstnat",
		Rules: []Rule{when(accept, append(plain, in(setPins4, iifname, etherSrc, saddr(IP4)))...)}}
	for _, prefix := range o.Ports {
		frames.Rules = append(frames.Rules, when(jump(chainPort), begins(iifname, prefix)))
	}
	t.Chains = append(t.Chains,
		Chain{Name: chainARP, Rules: []Rule{
			when(drop, notIn(setMACs, iifname, arpMAC)),
			when(accept, in(setPins4, iifname, etherSrc, arpIP)),
			when(drop, in(setTaken4, arpIP)),
		}},
		Chain{Name: chainIP4, Rules: []Rule{
			when(drop, udp, dport(dhcp4Client)),
			when(accept, in(setPins4, iifname, etherSrc, saddr(IP4))),
			when(drop, in(setTaken4, saddr(IP4))),
		}},
		Chain{Name: chainAdvert, Rules: []Rule{
			when(drop, icmp6("nd-router-advert", routerAdvert)),
			when(drop, icmp6("nd-redirect", redirectMessage)),
			when(back, isNot(icmp6Type, "nd-neighbor-advert", []byte{neighbourAdvert})),
			when(back, in(setPins6, iifname, etherSrc, ndTarget)),
			when(drop, in(setTaken6, ndTarget)),
		}},
		Chain{Name: chainIP6, Rules: []Rule{
			when(drop, udp, dport(dhcp6Client)),
			when(jump(chainAdvert), icmp),
			when(accept, in(setPins6, iifname, etherSrc, saddr(IP6))),
			when(drop, in(setTaken6, saddr(IP6))),
		}},
		port, frames)
	return t
}
