package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The table, as nft prints it:
//
//	raw          nothing from outside may carry a loopback address, neither
//	             as its destination nor as its source: route_localnet on the
//	             bridge switches the kernel's own checks off, ports bound to
//	             127.0.0.1 are the host's alone, and a service may trust who
//	             speaks from there
//	prerouting,  a packet to one of the host's own addresses goes through
//	output       publish, which looks for the port in four maps
//	postrouting  containers leave under the host's address; so does what
//	             would be answered past the host: a container that reaches
//	             its own bridge through a published port, and the host's
//	             loopback addresses
//	forward      into the bridge comes only an answer, a neighbour on the
//	             bridge, or what publish redirected
//
// A table can only forbid: a packet accepted here is still dropped by another
// table whose policy says so, such as the FORWARD policy DROP that a Docker
// daemon on the same host sets. That table is not this package's to change.
//
// A port is an element of a map, never a rule. A run of ports that are equal
// inside and outside is one element of an interval map, which yields only the
// address; it cannot be a NAT range, because the kernel does not keep the
// offset in those.
const (
	chainPublish = "publish"

	mapPorts         = "ports"          // proto . port -> address . port
	mapAddressPorts  = "address_ports"  // host address . proto . port -> address . port
	mapRanges        = "ranges"         // proto . ports -> address
	mapAddressRanges = "address_ranges" // host address . proto . ports -> address
)

// ruleset is the wanted state of the table.
type ruleset struct {
	Table    string
	Bridge   string
	Subnet   netip.Prefix
	Elements []element
}

// element redirects the host's ports First to Last of the protocol, on HostIP
// or on every address of the host if that is invalid, to Target. With Port 0
// the port is kept.
type element struct {
	HostIP      netip.Addr
	Proto       string
	First, Last uint16
	Target      netip.Addr
	Port        uint16
}

// mapName is the map that the element belongs to.
func (e element) mapName() string {
	switch {
	case e.Port == 0 && e.HostIP.IsValid():
		return mapAddressRanges
	case e.Port == 0:
		return mapRanges
	case e.HostIP.IsValid():
		return mapAddressPorts
	}
	return mapPorts
}

func (e element) String() string {
	var b strings.Builder
	if e.HostIP.IsValid() {
		fmt.Fprintf(&b, "%s . ", e.HostIP)
	}
	if e.Port == 0 {
		fmt.Fprintf(&b, "%s . %d-%d : %s", e.Proto, e.First, e.Last, e.Target)
	} else {
		fmt.Fprintf(&b, "%s . %d : %s . %d", e.Proto, e.First, e.Target, e.Port)
	}
	return b.String()
}

// elementsOf gives the elements that publish a sandbox's ports, a run of equal
// ports as one.
func elementsOf(b Sandbox) []element {
	gateway := b.Gateway4()
	if gateway == nil {
		return nil
	}
	ports := slices.Clone(b.Ports)
	slices.SortFunc(ports, func(a, b Published) int {
		if c := a.HostIP.Compare(b.HostIP); c != 0 {
			return c
		}
		if c := strings.Compare(a.Proto, b.Proto); c != 0 {
			return c
		}
		return int(a.HostPort) - int(b.HostPort)
	})
	var out []element
	for i := 0; i < len(ports); {
		p, end := ports[i], i+1
		for end < len(ports) && continues(ports[end-1], ports[end]) {
			end++
		}
		el := element{Proto: p.Proto, First: p.HostPort, Last: ports[end-1].HostPort, Target: gateway.Address.Addr()}
		if !p.HostIP.IsUnspecified() {
			el.HostIP = p.HostIP
		}
		if end == i+1 {
			el.Port = p.ContainerPort
		}
		out = append(out, el)
		i = end
	}
	return out
}

// continues tells whether b follows a in a run of equal ports.
func continues(a, b Published) bool {
	return a.HostIP == b.HostIP && a.Proto == b.Proto && int(b.HostPort) == int(a.HostPort)+1 &&
		a.HostPort == a.ContainerPort && b.HostPort == b.ContainerPort
}

// chain is a list of rules, at a hook of the kernel or, without one, to be
// jumped to.
type chain struct {
	name, kind, hook, priority string
	rules                      []rule
}

// rule applies its verdict to the packets that every match fits.
type rule struct {
	matches []match
	verdict verdict
}

// match is one condition; its String is nft's syntax.
type match struct {
	field  string // iifname, oifname, saddr, daddr, state, status, fib
	not    bool
	name   string       // an interface
	prefix netip.Prefix // saddr, daddr
}

// verdict is accept, drop, masquerade, jump (to chainPublish) or dnat through
// the map.
type verdict struct{ kind, lookup string }

func iif(name string) match          { return match{field: "iifname", name: name} }
func oif(name string) match          { return match{field: "oifname", name: name} }
func saddr(p netip.Prefix) match     { return match{field: "saddr", prefix: p} }
func daddr(p netip.Prefix) match     { return match{field: "daddr", prefix: p} }
func not(m match) match              { m.not = !m.not; return m }
func when(v string, m ...match) rule { return rule{m, verdict{kind: v}} }
func redirect(mapName string) rule   { return rule{nil, verdict{"dnat", mapName}} }

var (
	loopback    = netip.MustParsePrefix("127.0.0.0/8")
	established = match{field: "state"}
	redirected  = match{field: "status"}
	toHost      = match{field: "fib"}
)

// chains gives the table's chains in the order in which they are made: one
// that is jumped to comes first.
func (r ruleset) chains() []chain {
	in, out := iif(r.Bridge), oif(r.Bridge)
	return []chain{
		{name: chainPublish, rules: []rule{redirect(mapAddressPorts), redirect(mapPorts), redirect(mapAddressRanges), redirect(mapRanges)}},
		{"raw", "filter", "prerouting", "raw", []rule{
			when("drop", not(iif("lo")), daddr(loopback)),
			when("drop", not(iif("lo")), saddr(loopback)),
		}},
		{"prerouting", "nat", "prerouting", "dstnat", []rule{when("jump", toHost)}},
		{"output", "nat", "output", "-100", []rule{when("jump", toHost)}},
		{"postrouting", "nat", "postrouting", "srcnat", []rule{
			// A host's own connection to the bridge's address has a source
			// in the subnet too.
			when("accept", oif("lo")),
			when("masquerade", saddr(r.Subnet), not(out)),
			when("masquerade", saddr(r.Subnet), out, redirected),
			when("masquerade", saddr(loopback), out),
		}},
		{"forward", "filter", "forward", "filter", []rule{
			when("accept", not(out)),
			when("accept", established),
			when("accept", in),
			when("accept", redirected),
			when("drop"),
		}},
	}
}

// mapTypes are the maps' keys and values, in the order of their making.
var mapTypes = [...]struct {
	name, types string
	interval    bool
}{
	{mapPorts, "inet_proto . inet_service : ipv4_addr . inet_service", false},
	{mapAddressPorts, "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service", false},
	{mapRanges, "inet_proto . inet_service : ipv4_addr", true},
	{mapAddressRanges, "ipv4_addr . inet_proto . inet_service : ipv4_addr", true},
}

// String prints the table in nft's syntax.
func (r ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ip %s {\n", r.Table)
	for _, m := range mapTypes {
		fmt.Fprintf(&b, "\tmap %s {\n\t\ttype %s\n", m.name, m.types)
		if m.interval {
			b.WriteString("\t\tflags interval\n")
		}
		var elements []string
		for _, e := range r.Elements {
			if e.mapName() == m.name {
				elements = append(elements, e.String())
			}
		}
		if len(elements) > 0 {
			fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(elements, ",\n\t\t\t     "))
		}
		b.WriteString("\t}\n\n")
	}
	for _, c := range r.chains() {
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.hook != "" {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %s; policy accept;\n", c.kind, c.hook, c.priority)
		}
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n\n")
	}
	return strings.TrimSuffix(b.String(), "\n") + "}\n"
}

func (r rule) String() string {
	var words []string
	for _, m := range r.matches {
		words = append(words, m.String())
	}
	return strings.Join(append(words, r.verdict.String()), " ")
}

func (m match) String() string {
	operator := " "
	if m.not {
		operator = " != "
	}
	switch m.field {
	case "iifname", "oifname":
		return fmt.Sprintf("%s%s%q", m.field, operator, m.name)
	case "saddr", "daddr":
		return "ip " + m.field + operator + m.prefix.String()
	case "state":
		return "ct state established,related"
	case "status":
		return "ct status dnat"
	}
	return "fib daddr type local"
}

func (v verdict) String() string {
	switch v.kind {
	case "jump":
		return "jump " + chainPublish
	case "dnat":
		key := "meta l4proto . th dport"
		if strings.HasPrefix(v.lookup, "address_") {
			key = "ip daddr . " + key
		}
		if v.lookup == mapRanges || v.lookup == mapAddressRanges {
			return "dnat to " + key + " map @" + v.lookup
		}
		return "dnat ip to " + key + " map @" + v.lookup
	}
	return v.kind
}
