// Package firewall is what nftables does for containers: ports are published,
// networks are kept apart, and nobody on a bridge speaks for another.
//
// The wanted rules are a value, Rules, computed from the networks and the
// sandboxes alone; a Firewall puts it into the kernel, as a whole in one
// transaction or element by element. There is one table of a name per family:
//
//	ip, ip6   raw          nothing from outside may carry a loopback address:
//	                       route_localnet on the bridges switches the kernel's
//	                       own checks off, ports bound to 127.0.0.1 are the
//	                       host's alone, and a service may trust who speaks from
//	                       there (in IPv6 the kernel itself never lets them pass)
//	          prerouting,  a packet to one of the host's own addresses goes
//	          output       through publish, which looks for the port in maps
//	          postrouting  containers leave under the host's address; so does
//	                       what would be answered past the host: a container
//	                       that reaches its own bridge through a published port,
//	                       and the host's loopback addresses
//	          forward      into a bridge comes only an answer, a neighbour on the
//	                       bridge, or what publish redirected
//	          input        with HostFirewall alone: what the host's own rules let
//	                       pass to a published port is handed back, see admit.go
//	bridge    frames       what enters a bridge from a container: its own MAC
//	                       address, no address of somebody else's, no router
//	                       advertisement, nothing to a DHCP client
//	netdev    neighbours-… what a container sends to a neighbour goes straight out
//	                       of the other's port, see shortcut.go
//
// A table can only forbid: a packet accepted here is still dropped by another
// table whose policy says so, such as the FORWARD policy DROP that a Docker
// daemon on the same host sets. That table is not this package's to change.
//
// What grows with containers, ports or networks is an element of a set, never a
// rule. A run of ports that are equal inside and outside is one element of an
// interval map, which yields only the address; it cannot be a NAT range, because
// the kernel does not keep the offset in those.
package firewall

import "net/netip"

// Options are the same for all networks of a daemon.
type Options struct {
	// Table is the tables' name, unique per daemon on a host.
	Table string
	// Ports are what the names of the bridges' ports begin with that this
	// daemon makes.
	Ports []string
	// DirectRouting lets others than the host reach published ports at the
	// container's own address.
	DirectRouting bool
	// AcceptMark lets packets with the mark, as far as AcceptMask tells, into
	// any bridge. A mask of 0 is none.
	AcceptMark, AcceptMask uint32
	// HostFirewall subjects published ports to the host's own input rules.
	HostFirewall bool
	// Off leaves out all tables but that of ip6, Off6 that one.
	Off, Off6 bool
	// Shortcut lets frames between neighbours go from port to port. Nobody
	// else's rules look at them then, see Onlookers.
	Shortcut bool
}

// The gateway modes of a network.
const (
	ModeNAT         = "nat"             // ports are published on the host's addresses
	ModeUnprotected = "nat-unprotected" // and others may reach all ports at the container's address
	ModeRouted      = "routed"          // published ports, and ICMP, reach the container's own address alone
	ModeIsolated    = "isolated"        // the host has no address on it
)

// Network is one bridge.
type Network struct {
	ID, Name, Bridge   string
	Subnet4, Subnet6   netip.Prefix // invalid without the family
	Gateway4, Gateway6 netip.Addr   // the bridge's own
	Routers            []netip.Addr // where default routes lead that do not lead there
	MAC                string       // the bridge's; needed without ICC, and for shortcuts
	Internal           bool         // nothing passes between it and the outside
	ICC                bool         // containers on it reach each other
	Masquerade         bool         // they leave under the host's address
	Mode4, Mode6       string       // "" is ModeNAT
	Source4, Source6   netip.Addr   // that address, if it is not the way out's
	Trusted            []string     // host interfaces from which published ports are reached directly
}

// Sandbox is a container's network.
type Sandbox struct {
	ID, Name string
	Places   []Place
	Ports    []Port
	// Target4 and Target6 are where ports lead that are published in the
	// family, invalid if nowhere.
	Target4, Target6 Target
}

// Place is an interface on a bridge.
type Place struct {
	Network   string // its ID
	Port      string // the host's end of the interface pair
	MAC       string
	Addresses []netip.Addr // besides that of the link, which follows from MAC
}

// Target is a container's address on a network.
type Target struct {
	Network string // its ID
	Address netip.Addr
}

// Port is a published port. An unspecified HostIP is all of the host's addresses
// of the family.
type Port struct {
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
	Proto         string // tcp, udp or sctp
}

// target is where the port leads.
func (s Sandbox) target(p Port) Target {
	if p.HostIP.Is4() {
		return s.Target4
	}
	return s.Target6
}

// Family of tables.
type Family byte

// The families, by the kernel's numbers.
const (
	IP4    Family = 2  // NFPROTO_IPV4
	Netdev Family = 5  // NFPROTO_NETDEV
	Bridge Family = 7  // NFPROTO_BRIDGE
	IP6    Family = 10 // NFPROTO_IPV6
)

// Families are those in which a daemon may have a table.
var Families = [...]Family{IP4, IP6, Bridge, Netdev}

func (f Family) String() string {
	switch f {
	case IP4:
		return "ip"
	case IP6:
		return "ip6"
	case Netdev:
		return "netdev"
	}
	return "bridge"
}

// mode is the network's gateway mode in the family.
func (n Network) mode(f Family) string {
	mode := n.Mode4
	if f == IP6 {
		mode = n.Mode6
	}
	if mode == "" {
		return ModeNAT
	}
	return mode
}

func (n Network) subnet(f Family) netip.Prefix {
	if f == IP6 {
		return n.Subnet6
	}
	return n.Subnet4
}

func (n Network) source(f Family) netip.Addr {
	if f == IP6 {
		return n.Source6
	}
	return n.Source4
}

// closed tells whether nothing passes between the network and the outside.
func (n Network) closed(f Family) bool { return n.Internal || n.mode(f) == ModeIsolated }
