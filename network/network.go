// Package network connects containers: networks with their bridges and
// addresses, the interfaces of each container, the published ports and the
// address translation, and the files hosts and resolv.conf.
//
// A Service owns the default bridge and those of the user-defined networks,
// which are known by their MAC addresses, the interfaces on them whose names
// begin with the daemon's own prefix, and one nftables table. On disk it keeps
// the user-defined networks, see store. What it must know again of the
// containers are the Sandboxes, which the caller stores and hands to Restore.
// While it is open nobody else opens one on the same default bridge, see claim.
//
//	Open        claims the default bridge, which comes up with its address;
//	            reads the stored networks; forwarding on
//	Restore     makes the networks' bridges where they are missing, claims
//	            addresses, replaces the table in one transaction, removes what
//	            belongs to nobody; the pools begin to fill. Once, before the rest
//	Create,     a network with its bridge or what its driver makes; on disk last,
//	Remove      and gone from there first: a crash leaves a bridge without a
//	            network, which Restore deletes, or the other way round, which it
//	            makes
//	Attach      network namespace with interfaces, bound sockets, table elements
//	Connect,    an interface of a running container comes or goes; its default
//	Disconnect  route and ports follow
//	Detach      elements gone at once, the interfaces in the background
//	Close       waits for the background work and drops the pools; bridges, table
//	            and the interfaces of running containers stay
//
// Of what it is made:
//
//	planner     what is asked for -> the network that shall be (plan.go)
//	raiser      makes networks and takes them back: bridges, drivers' (raise.go)
//	lans        the networks that there are (lans.go), each with its subnets (subnets.go)
//	pools       namespaces that wait for containers (pool.go)
//	fitter      a container's interfaces and addresses (fit.go, in a box, box.go)
//	publisher   its ports on the host (ports.go, package publish)
//	naming      the resolver, which is told of its names (naming.go)
//	sandboxes   the containers that there are (sandboxes.go)
//	ruleset     the firewall's rules for all of it (ruleset.go, package firewall)
//	remover     deletes in the background what is done with (remover.go)
package network

import (
	"context"
	"net/netip"
	"os"
	"time"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/network/ipam"
	"github.com/tarehq/tare/network/publish"
)

// Config says what a Service is built on.
type Config struct {
	// Root is the directory of the stored networks; "" keeps none.
	Root string
	// Bridge is the default bridge's interface, at most 15 bytes: "tare0". With
	// "" there is no default bridge, and no network of that name.
	Bridge string
	// BIP and BIP6 are the default bridge's addresses with their subnets'
	// lengths. Without one the address that the bridge already has is kept,
	// else a subnet of Pools is taken that overlaps none of the host's routes.
	BIP, BIP6 netip.Prefix
	// FixedCIDR and FixedCIDR6 are where containers on the default bridge get
	// their addresses from.
	FixedCIDR, FixedCIDR6 netip.Prefix
	// DefaultGateway and DefaultGateway6 are where their default routes lead if
	// not to the bridge.
	DefaultGateway, DefaultGateway6 netip.Addr
	// NoICC keeps containers on the default bridge from each other,
	// NoMasquerade lets them leave under their own addresses.
	NoICC, NoMasquerade bool
	// BindIP is where the default bridge's ports are published that name no
	// address.
	BindIP netip.Addr
	// MTU of the default bridge and its containers' interfaces, in bytes; 1500
	// if 0.
	MTU int
	// IPv6 turns it on for the default bridge, and for new networks that do not
	// say otherwise.
	IPv6 bool
	// Pools are the subnets to choose from; the default ones for a family
	// without.
	Pools []Pool
	// NetworkOptions are options of new networks that do not set them, by
	// driver.
	NetworkOptions map[string]map[string]string
	// Name is the nftables table's name, unique per daemon on a host;
	// "tare-" and the bridge's name if empty, or what stands for it.
	Name string
	// Identity is what the predefined networks' IDs, the interfaces' names and
	// the bridges' MAC addresses are derived from, such as the daemon's data
	// root; Name if empty.
	Identity string
	// HostID is what the default IPv6 subnets are derived from, the same for
	// the life of the host; Identity if empty.
	HostID string
	// ForwardAll leaves it to others what the host forwards between its other
	// interfaces. Without it such traffic is dropped on a host that did not
	// forward before.
	ForwardAll bool
	// DirectRouting, AcceptMark, AcceptMask and HostFirewall are those of
	// firewall.Options.
	DirectRouting          bool
	AcceptMark, AcceptMask uint32
	HostFirewall           bool
	// NoRules makes no rules at all but those of IPv6, and NoRules6 none of that: what
	// is published is relayed, nothing is kept apart, nobody leaves under the host's
	// address. NoForwarding leaves the host's forwarding as it is.
	NoRules, NoRules6, NoForwarding bool
	// NoProxy publishes nothing on IPv6 for containers that have IPv4 alone, and has
	// nothing relayed where there are no rules.
	NoProxy bool
	// Spare is how many network namespaces with their interface pairs are
	// kept ready for Attach on the default bridge; 0 makes each when it is asked
	// for, on the other networks too.
	Spare int
	// NewNS makes the network namespaces, such as another user namespace owns; nil
	// for those of the host's.
	NewNS func() (*os.File, error)
	// Names is told who is reachable under which names; nil for nobody.
	Names Names
	// Events is told of networks that come and go; nil for nobody.
	Events *event.Log
	// Drivers make the networks of other kinds than bridge, by their name.
	Drivers map[string]Driver
	// Plugin finds the driver of a name that is not in Drivers, each time anew;
	// fault.NotFound for one that is not there. nil finds none.
	Plugin func(ctx context.Context, name string) (Driver, error)
	// IPAM finds the driver of addresses of a name other than default and null in
	// the same way.
	IPAM func(ctx context.Context, name string) (Addresses, error)
}

// Pool is a range that is cut into subnets of Size bits.
type Pool = ipam.Pool

// Port asks to publish one port of the container.
type Port = publish.Port

// Published is a port as it was published.
type Published = publish.Published

// Attachment is what Attach made. NetNS, Sockets and Sys belong to the caller, who
// closes them: the namespace lives as long as a descriptor or a process in it,
// and a published port stays taken on the host as long as its socket is open.
type Attachment struct {
	Sandbox
	NetNS   *os.File
	Sockets []*os.File
	// Sys has the namespace's sysfs made already, so that its first mount is quick;
	// nil for none. It need not be open any more when that is done.
	Sys *os.File
}

// linger is how long a background step may take before it is given up.
const linger = 10 * time.Second
