package remote

import (
	"context"
	"net/netip"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
)

// joinAnswer is what a plugin says about the interface that it made.
type joinAnswer struct {
	InterfaceName *struct{ SrcName, DstName, DstPrefix string }
	Gateway       string
	GatewayIPv6   string
	StaticRoutes  []struct {
		Destination string
		RouteType   int // 0 by way of NextHop, 1 on the link
		NextHop     string
	}
	DisableGatewayService bool
}

// link reads the answer. The gateways are the plugin's to name.
func (j joinAnswer) link(e *network.Endpoint) (network.Link, error) {
	var link network.Link
	e.Gateway, e.Gateway6 = netip.Addr{}, netip.Addr{}
	if n := j.InterfaceName; n != nil {
		if len(n.SrcName) > 15 || len(n.DstPrefix) > 12 {
			return link, fault.New(fault.Unavailable, "invalid interface name %.40q", n.SrcName+" "+n.DstPrefix)
		}
		link.Name, link.Prefix = n.SrcName, n.DstPrefix
	}
	var err error
	if j.Gateway != "" {
		if e.Gateway, err = netip.ParseAddr(j.Gateway); err != nil || !e.Gateway.Is4() {
			return link, fault.New(fault.Unavailable, "invalid gateway %q", j.Gateway)
		}
	}
	if j.GatewayIPv6 != "" {
		if e.Gateway6, err = netip.ParseAddr(j.GatewayIPv6); err != nil || !e.Gateway6.Is6() {
			return link, fault.New(fault.Unavailable, "invalid IPv6 gateway %q", j.GatewayIPv6)
		}
	}
	for _, r := range j.StaticRoutes {
		var route network.Route
		if route.Destination, err = netip.ParsePrefix(r.Destination); err != nil {
			return link, fault.New(fault.Unavailable, "invalid route to %q", r.Destination)
		}
		if r.RouteType == 0 {
			if route.Gateway, err = netip.ParseAddr(r.NextHop); err != nil {
				return link, fault.New(fault.Unavailable, "invalid next hop %q of the route to %s", r.NextHop, r.Destination)
			}
		}
		link.Routes = append(link.Routes, route)
	}
	return link, nil
}

// endpointOptions are the user's, by their names.
func endpointOptions(e network.Endpoint) map[string]any {
	options := map[string]any{}
	for k, v := range e.Options {
		options[k] = v
	}
	return options
}

// portBinding and transportPort are libnetwork's, which numbers protocols.
type portBinding struct {
	Proto       int
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

type transportPort struct {
	Proto int
	Port  uint16
}

var protocols = map[string]int{"": 6, "tcp": 6, "udp": 17, "sctp": 132}

// Expose has the plugin publish ports on the endpoint, which has its container's
// default route from now on.
func (d *Driver) Expose(ctx context.Context, n wire.Network, e network.Endpoint, ports []network.Port) error {
	options := endpointOptions(e)
	bindings, exposed := []portBinding{}, []transportPort{}
	for _, p := range ports {
		b := portBinding{Proto: protocols[p.Proto], Port: p.ContainerPort, HostPort: p.HostPort, HostPortEnd: max(p.HostPort, p.HostPortEnd)}
		if p.HostIP.IsValid() {
			b.HostIP = p.HostIP.String()
		}
		bindings = append(bindings, b)
		exposed = append(exposed, transportPort{b.Proto, b.Port})
	}
	options[optionPorts], options[optionExposed] = bindings, exposed
	request := struct {
		place
		Options map[string]any
	}{place{n.ID, e.ID}, options}
	return askIfKnown(ctx, d.plugin, networkDriver+".ProgramExternalConnectivity", request, nil)
}

// Conceal takes that back.
func (d *Driver) Conceal(ctx context.Context, n wire.Network, e network.Endpoint) error {
	return askIfKnown(ctx, d.plugin, networkDriver+".RevokeExternalConnectivity", place{n.ID, e.ID}, nil)
}
