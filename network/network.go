// Package network connects containers: the default bridge with its addresses,
// the interface pair of each container, the published ports and the address
// translation, and the files hosts and resolv.conf.
//
// A Service owns one bridge, the interfaces enslaved to it whose names begin
// with the bridge's own prefix, and one nftables table of the family ip. It
// reads and writes nothing on disk: what it must know again after a restart of
// the daemon are the Endpoints, which the caller stores and hands to Restore.
// While it is open nobody else opens one on the same bridge, see claim.
//
//	Open      claims the bridge, which comes up with its address; forwarding on
//	Restore   claims addresses, replaces the table in one transaction, removes
//	          what belongs to nobody; the pool begins to fill. Once, before Attach
//	Attach    network namespace with eth0, bound sockets, table elements
//	Detach    elements gone at once, the interface pair in the background
//	Close     waits for the background work and drops the pool; bridge, table
//	          and the interfaces of running containers stay
package network

import (
	"net/netip"
	"os"
	"time"
)

// Config says what a Service is built on.
type Config struct {
	// Bridge is the interface's name, at most 15 bytes: "tare0".
	Bridge string
	// BIP is the bridge's address with its subnet's length. Without one the
	// address that the bridge already has is kept, else the first subnet of
	// Pools that overlaps none of the host's routes is taken.
	BIP netip.Prefix
	// Pools are the subnets to choose from; DefaultPools if empty.
	Pools []Pool
	// MTU of the bridge and the containers' interfaces, in bytes; 1500 if 0.
	MTU int
	// Name is the nftables table's name, unique per daemon on a host;
	// "tare-" and the bridge's name if empty.
	Name string
	// Identity is what the networks' IDs and the interfaces' names are derived
	// from, such as the daemon's data root; Name if empty.
	Identity string
	// ForwardAll leaves it to others what the host forwards between its other
	// interfaces. Without it such traffic is dropped on a host that did not
	// forward before.
	ForwardAll bool
	// NoProxy publishes nothing on IPv6 for containers that have IPv4 alone.
	NoProxy bool
	// Spare is how many network namespaces with their interface pairs are
	// kept ready for Attach; 0 makes each when it is asked for.
	Spare int
	// Names is told who is reachable under which names; nil for nobody.
	Names Names
	// Drivers make the networks of other kinds than bridge, by their name.
	Drivers map[string]Driver
}

// Pool is a range that is cut into subnets of Size bits.
type Pool struct {
	Base netip.Prefix
	Size int
}

// Port asks to publish one port of the container.
type Port struct {
	// HostIP is the host's address to publish on; the zero Addr and 0.0.0.0
	// mean all of them.
	HostIP netip.Addr
	// HostPort is the host's port; 0 takes a free one. With a HostPortEnd
	// above it the first free port of the range is taken.
	HostPort, HostPortEnd uint16
	ContainerPort         uint16
	// Proto is "tcp" or "udp"; "" means tcp.
	Proto string
}

// Published is a port as it was published.
type Published struct {
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
	Proto         string
}

// Attachment is what Attach made. NetNS and Sockets belong to the caller, who
// closes them: the namespace lives as long as a descriptor or a process in it,
// and a published port stays taken on the host as long as its socket is open.
type Attachment struct {
	Sandbox
	NetNS   *os.File
	Sockets []*os.File
}

// linger is how long a background step may take before it is given up.
const linger = 10 * time.Second
