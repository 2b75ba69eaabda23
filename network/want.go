package network

import (
	"net/netip"

	"github.com/tarehq/tare/network/shape"
)

// Request asks for a container's place on its networks.
type Request struct {
	ContainerID string
	// Name is the container's, for error messages, network inspect and, on
	// user-defined networks, the resolver.
	Name                 string
	Hostname, Domainname string
	// Wants are the networks, in the order in which their interfaces are made
	// and numbered. None is a namespace with lo alone.
	Wants []Want
	// Ports to publish.
	Ports []Port
	DNS   Resolver
}

// Want asks for a place on one network. What is zero is chosen.
type Want struct {
	// Network is its name or ID; "" and "default" are the default bridge.
	Network string
	// Interface is the name in the container, eth0 and so on if "".
	Interface         string
	Address, Address6 netip.Addr
	// LinkLocal are addresses of the link besides those.
	LinkLocal []netip.Addr
	// MAC is the interface's address.
	MAC string
	// Aliases are names on that network besides the container's own name,
	// its short ID and its host name.
	Aliases []string
	// Links are names that this container alone sees on that network: alias
	// to container ID.
	Links map[string]string
	// Sysctls are settings of the interface, net.X.Y.IFNAME.Z=VALUE.
	Sysctls []string
	// Options are the driver's, those of Docker that have no field here.
	Options map[string]string
	// GwPriority: the highest of a container's has its default route.
	GwPriority int
	Rate       Rate
}

// Rate bounds an interface.
type Rate = shape.Limits

// Resolver is what a container asked of its name resolution.
type Resolver struct {
	Servers []netip.Addr `json:",omitempty"`
	Search  []string     `json:",omitempty"`
	Options []string     `json:",omitempty"`
}
