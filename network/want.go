package network

import (
	"net"
	"net/netip"
	"os"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/link"
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
	// NetNS is a network namespace to furnish, which stays the caller's; nil for one
	// that is made, or waits.
	NetNS *os.File
	// ReadOnlySys tells that the container's sysfs will be: see Attachment.Sys.
	ReadOnlySys bool
}

// Want asks for a place on one network. What is zero is chosen.
type Want struct {
	// Network is its name or ID; "" and "default" are the default bridge.
	Network string
	// Interface is the name in the container, eth0 and so on if "".
	Interface         string
	Address, Address6 netip.Addr
	// WithoutIPv6 is for a container that has switched IPv6 off: it has no such
	// address, and nobody is told of one.
	WithoutIPv6 bool
	// LinkLocal are addresses of the link besides those.
	LinkLocal []netip.Addr
	// MAC is the interface's address.
	MAC string
	// Aliases are names on that network besides the container's own name,
	// its short ID and its host name.
	Aliases []string
	// Links are names that this container alone sees on that network: alias
	// to the name of another, which is looked up when it is asked for.
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

// CheckWant refuses what no network can give, before anything is taken.
func CheckWant(w Want) error {
	if w.Interface != "" {
		if err := checkInterfaceName(w.Interface); err != nil {
			return err
		}
		if w.Interface == "lo" {
			return fault.New(fault.Invalid, "invalid interface name %q: every container has it already", w.Interface)
		}
	}
	if w.MAC != "" {
		if mac, err := net.ParseMAC(w.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return fault.New(fault.Invalid, "invalid MAC address %q", w.MAC)
		}
	}
	if w.Address.IsValid() && !w.Address.Is4() {
		return fault.New(fault.Invalid, "invalid IPv4 address: %s", w.Address)
	}
	if w.Address6.IsValid() && (!w.Address6.Is6() || w.Address6.Is4In6()) {
		return fault.New(fault.Invalid, "invalid IPv6 address: %s", w.Address6)
	}
	for _, a := range w.LinkLocal {
		if !a.IsLinkLocalUnicast() || a.Zone() != "" {
			return fault.New(fault.Invalid, "invalid link local IP address: %s", a)
		}
	}
	for _, set := range w.Sysctls {
		if _, _, err := link.ReadSysctl(set, "eth0"); err != nil {
			return err
		}
	}
	return nil
}
