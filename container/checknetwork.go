package container

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
)

// nameNetworks calls the networks of a request by their names, whatever the
// client called them. Of those that nobody knows the start will tell.
func (c *creation) nameNetworks() {
	networks, req := c.containers.cfg.Networks, c.req
	h := req.HostConfig
	userDefined := h.NetworkMode.IsUserDefined()
	if userDefined {
		mode := string(h.NetworkMode)
		switch n, err := networks.Lookup(mode); {
		case err != nil:
		case n.Predefined:
			h.NetworkMode, userDefined = wire.NetworkMode(n.Name), false
		case mode != n.Name && mode != n.ID: // a beginning of the ID, which may come to mean another
			h.NetworkMode = wire.NetworkMode(n.ID)
		}
	}
	var named map[string]*wirenet.EndpointSettings
	if given := req.NetworkingConfig; given != nil && len(given.EndpointsConfig) > 0 {
		named = map[string]*wirenet.EndpointSettings{}
		for name, e := range given.EndpointsConfig {
			if n, err := networks.Lookup(name); err == nil {
				name = n.Name
			}
			named[name] = e
		}
	} else if userDefined {
		name := string(h.NetworkMode)
		if n, err := networks.Lookup(name); err == nil {
			name = n.Name
		}
		named = map[string]*wirenet.EndpointSettings{name: {}}
	}
	if named != nil {
		req.NetworkingConfig = &wirenet.NetworkingConfig{EndpointsConfig: named}
	}
}

// checkNetwork refuses what contradicts the network mode. Nothing that is
// missing is fault.NotFound here: by that, clients know a missing image. A
// network that is missing is told of by the start, as Docker does.
func (c *creation) checkNetwork() error {
	config, h := c.req.Config, c.req.HostConfig
	mode := h.NetworkMode
	conflict := func(what string) error {
		return fault.New(fault.Invalid, "conflicting options: %s and the network mode", what)
	}
	switch {
	case h.UTSMode.IsHost() && config.Hostname != "":
		return fault.New(fault.Invalid, "conflicting options: hostname and the UTS mode")
	case h.UTSMode.IsHost() && config.Domainname != "":
		return fault.New(fault.Invalid, "conflicting options: domainname and the UTS mode")
	case !mode.IsContainer():
		return c.checkEndpoints()
	case mode.ConnectedContainer() == "":
		return fault.New(fault.Invalid, "invalid network mode: invalid container format container:<name|id>")
	case config.Hostname != "":
		return conflict("hostname")
	case len(h.DNS) > 0:
		return conflict("dns")
	case len(h.DNSSearch) > 0:
		return conflict("dns-search")
	case len(h.DNSOptions) > 0:
		return conflict("dns-option")
	case len(h.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping")
	case len(h.PortBindings) > 0 || h.PublishAllPorts:
		return fault.New(fault.Invalid, "conflicting options: port publishing and the container type network mode")
	case len(config.ExposedPorts) > 0:
		return fault.New(fault.Invalid, "conflicting options: port exposing and the container type network mode")
	}
	return c.checkEndpoints()
}

// checkJoined refuses a network of a container that is not there.
func (c *creation) checkJoined(h *wire.HostConfig) error {
	if other := h.NetworkMode.ConnectedContainer(); other != "" {
		if _, err := c.containers.store.Find(other); err != nil {
			return fault.New(fault.Invalid, "joining network namespace of container: %w", err)
		}
	}
	return nil
}

// checkEndpoints refuses networks that cannot be together and settings that
// they cannot have.
func (c *creation) checkEndpoints() error {
	given := c.req.NetworkingConfig
	if given == nil {
		return nil
	}
	mode := c.req.HostConfig.NetworkMode
	names := slices.Sorted(maps.Keys(given.EndpointsConfig))
	for _, name := range names {
		e := given.EndpointsConfig[name]
		own := name == string(mode)
		switch {
		case e == nil:
			return fault.New(fault.Invalid, "invalid config for network %s: EndpointsConfig is nil", name)
		case !mode.IsPrivate() && !own:
			return errShared
		case (!mode.IsPrivate() || mode.IsNone()) && len(e.MacAddress) > 0:
			return fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
		case !own && name == wirenet.NetworkHost:
			return errNotHost
		case len(names) > 1 && name == wirenet.NetworkNone, mode.IsNone() && !own:
			return errNone
		}
		if err := c.containers.Places.check(name, e); err != nil {
			return fault.New(fault.Invalid, "invalid config for network %s: %w", name, err)
		}
	}
	return nil
}

// Docker's refusals of networks that cannot be together.
var (
	errNotHost = fault.New(fault.Invalid, "cannot connect container to host network - container must be created in host network mode")
	errNone    = fault.New(fault.Invalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
)

// check refuses settings that a network could never give, in Docker's
// words; the network need not exist yet.
func (p *Places) check(name string, e *wirenet.EndpointSettings) error {
	n, err := p.containers.cfg.Networks.Lookup(name)
	var known *network.Network
	if err == nil {
		known, name = &n, n.Name
	}
	wrong := wrongSettings(known, name, e)
	switch len(wrong) {
	case 0:
		return nil
	case 1:
		return fault.New(fault.Invalid, "invalid endpoint settings:\n%s", wrong[0])
	}
	return fault.New(fault.Invalid, "invalid endpoint settings:\n* %s", strings.Join(wrong, "\n* "))
}

// wrongSettings lists what is wrong with the settings on a network, which is
// nil if it is not known.
func wrongSettings(n *network.Network, name string, e *wirenet.EndpointSettings) (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	var ipam wirenet.EndpointIPAMConfig
	if e.IPAMConfig != nil {
		ipam = *e.IPAMConfig
	}
	v4, v6 := ipam.IPv4Address.Unmap(), ipam.IPv6Address.Unmap()
	if !wire.NetworkMode(name).IsUserDefined() {
		if v4.IsValid() || v6.IsValid() {
			add("user specified IP address is supported on user defined networks only")
		}
		if len(e.Aliases) > 0 {
			add("network-scoped alias is supported only for containers in user defined networks")
		}
	}
	if v4.IsValid() && (!v4.Is4() || v4.IsUnspecified()) {
		add("invalid IPv4 address: %s", v4)
	}
	if v6.IsValid() && (!v6.Is6() || v6.IsUnspecified() || v6.Zone() != "") {
		add("invalid IPv6 address: %s", v6)
	}
	for _, a := range ipam.LinkLocalIPs {
		if !a.IsValid() || a.IsUnspecified() {
			add("invalid link-local IP address: %s", a)
		}
	}
	for i, a := range []netip.Addr{v4, v6} {
		if n == nil || !a.IsValid() {
			continue
		}
		if err := n.CheckAddress(a, i == 1); err != nil {
			add("%s", err)
		}
	}
	if len(e.MacAddress) != 0 && len(e.MacAddress) != 6 {
		add("invalid MAC address %s", e.MacAddress)
	}
	for _, link := range e.Links {
		if _, _, err := record.ParseLink(link); err != nil {
			add("%s", err)
		}
	}
	if err := checkRate(n, e.DriverOpts); err != nil {
		add("%s", err)
	}
	if list, given := e.DriverOpts[record.OptionSysctls]; given {
		for _, sysctl := range strings.Split(list, ",") {
			if !isInterfaceSysctl(sysctl) {
				add("unrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", sysctl)
			}
		}
	}
	return wrong
}

// isInterfaceSysctl tells whether s is net.X.Y.IFNAME.Z=V. The command line
// makes small letters of it.
func isInterfaceSysctl(s string) bool {
	parts := strings.SplitN(s, ".", 5)
	return len(parts) == 5 && (parts[1] == "ipv4" || parts[1] == "ipv6" || parts[1] == "mpls") && (parts[3] == "IFNAME" || parts[3] == "ifname")
}
