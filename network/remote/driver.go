package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plugin"
	"github.com/tarehq/tare/network"
)

// The names under which the protocol knows options.
const (
	optionGeneric  = "com.docker.network.generic"
	optionIPv4     = "com.docker.network.enable_ipv4"
	optionIPv6     = "com.docker.network.enable_ipv6"
	optionInternal = "com.docker.network.internal"
	optionPorts    = "com.docker.network.portmap"
	optionExposed  = "com.docker.network.endpoint.exposedports"
	optionMAC      = "com.docker.network.endpoint.macaddress"
	optionGateway  = "com.docker.network.gateway"
)

// Driver is a plugin that makes networks.
type Driver struct {
	plugin *plugin.Plugin
	global bool // its networks are those of a cluster
}

func (d *Driver) ask(ctx context.Context, method string, args, result any) error {
	return ask(ctx, d.plugin, networkDriver+"."+method, args, result)
}

// learn asks for the plugin's capabilities.
func (d *Driver) learn(ctx context.Context) error {
	var can struct{ Scope string }
	if err := d.ask(ctx, "GetCapabilities", nil, &can); err != nil {
		return err
	}
	if can.Scope != "local" && can.Scope != "global" {
		return fault.New(fault.Unavailable, "plugin %q: invalid capability: expecting 'local' or 'global', got %s", d.plugin.Name, can.Scope)
	}
	d.global = can.Scope == "global"
	return nil
}

// Check sets the network's scope. What options there may be the plugin knows alone.
func (d *Driver) Check(_ context.Context, n *wire.Network) error {
	if d.global {
		n.Scope = "global"
	}
	return nil
}

// pool is a subnet as the protocol has it.
type pool struct {
	AddressSpace string
	Pool         string            `json:",omitempty"`
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

// pools lists a network's subnets of one family.
func pools(n wire.Network, v6 bool) []pool {
	list := []pool{}
	for _, c := range n.IPAM.Config {
		if c.Subnet.Addr().Is6() != v6 {
			continue
		}
		p := pool{AddressSpace: "LocalDefault", Pool: c.Subnet.String()}
		if c.Gateway.IsValid() {
			p.Gateway = netip.PrefixFrom(c.Gateway, c.Subnet.Bits()).String()
		}
		for name, a := range c.AuxAddress {
			if p.AuxAddresses == nil {
				p.AuxAddresses = map[string]string{}
			}
			p.AuxAddresses[name] = netip.PrefixFrom(a, c.Subnet.Bits()).String()
		}
		list = append(list, p)
	}
	return list
}

// Create has the plugin make the network, which it then keeps.
func (d *Driver) Create(ctx context.Context, n wire.Network) error {
	generic := maps.Clone(n.Options)
	if generic == nil {
		generic = map[string]string{}
	}
	type request struct {
		NetworkID          string
		Options            any
		IPv4Data, IPv6Data []pool
	}
	v4, v6 := pools(n, false), pools(n, true)
	if d.global {
		var state struct{ Options map[string]string }
		if err := askIfKnown(ctx, d.plugin, networkDriver+".AllocateNetwork", request{n.ID, generic, v4, v6}, &state); err != nil {
			return err
		}
		maps.Copy(generic, state.Options)
	}
	options := map[string]any{optionGeneric: generic, optionIPv4: n.EnableIPv4, optionIPv6: n.EnableIPv6}
	if n.Internal {
		options[optionInternal] = true
	}
	err := d.ask(ctx, "CreateNetwork", request{n.ID, options, v4, v6}, nil)
	if err != nil && d.global {
		return errors.Join(err, d.free(ctx, n))
	}
	return err
}

// Restore has nothing to do: the plugin has its networks.
func (d *Driver) Restore(context.Context, wire.Network) error { return nil }

func (d *Driver) free(ctx context.Context, n wire.Network) error {
	return askIfKnown(ctx, d.plugin, networkDriver+".FreeNetwork", map[string]string{"NetworkID": n.ID}, nil)
}

// Remove has the plugin take the network back.
func (d *Driver) Remove(ctx context.Context, n wire.Network) error {
	if err := d.ask(ctx, "DeleteNetwork", map[string]string{"NetworkID": n.ID}, nil); err != nil {
		return err
	}
	if d.global {
		return d.free(ctx, n)
	}
	return nil
}

// place names an endpoint.
type place struct{ NetworkID, EndpointID string }

// face is an endpoint's interface as the protocol has it.
type face struct{ Address, AddressIPv6, MacAddress string }

// Join has the plugin make the endpoint and its interface.
func (d *Driver) Join(ctx context.Context, n wire.Network, e *network.Endpoint, netns *os.File) (_ network.Link, err error) {
	at := place{n.ID, e.ID}
	if err := d.createEndpoint(ctx, at, e); err != nil {
		return network.Link{}, err
	}
	joined := false
	defer func() {
		if err != nil {
			err = errors.Join(err, d.takeBack(ctx, at, joined))
		}
	}()
	var answer joinAnswer
	request := struct {
		place
		SandboxKey string
		Options    map[string]any
	}{at, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), netns.Fd()), endpointOptions(*e)}
	if err := d.ask(ctx, "Join", request, &answer); err != nil {
		return network.Link{}, err
	}
	joined = true
	link, err := answer.link(e)
	if err != nil {
		return network.Link{}, fmt.Errorf("plugin %q answers NetworkDriver.Join: %w", d.plugin.Name, err)
	}
	if n.Internal {
		e.Gateway, e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	return link, d.inform(ctx, at, e)
}

// createEndpoint tells the plugin of the endpoint. It may add what is not chosen
// yet, and not change what is.
func (d *Driver) createEndpoint(ctx context.Context, at place, e *network.Endpoint) error {
	asked := face{MacAddress: e.MAC}
	if e.Address.IsValid() {
		asked.Address = e.Address.String()
	}
	if e.Address6.IsValid() {
		asked.AddressIPv6 = e.Address6.String()
	}
	request := struct {
		place
		Interface face
		Options   map[string]any
	}{at, asked, endpointOptions(*e)}
	var answer struct{ Interface *face }
	if err := d.ask(ctx, "CreateEndpoint", request, &answer); err != nil {
		return err
	}
	if answer.Interface == nil {
		return nil
	}
	if err := answer.Interface.complete(asked, e); err != nil {
		return errors.Join(fmt.Errorf("plugin %q answers NetworkDriver.CreateEndpoint: %w", d.plugin.Name, err), d.takeBack(ctx, at, false))
	}
	return nil
}

// complete enters what the plugin chose.
func (f face) complete(asked face, e *network.Endpoint) error {
	for _, pair := range [][2]string{{f.Address, asked.Address}, {f.AddressIPv6, asked.AddressIPv6}} {
		if pair[0] != "" && pair[1] != "" && pair[0] != pair[1] {
			return fault.New(fault.Unavailable, "driver modified interface address: %s was given out, not %s", pair[1], pair[0])
		}
	}
	var err error
	if f.Address != "" {
		if e.Address, err = netip.ParsePrefix(f.Address); err != nil || !e.Address.Addr().Is4() {
			return fault.New(fault.Unavailable, "invalid IPv4 address %q", f.Address)
		}
	}
	if f.AddressIPv6 != "" {
		if e.Address6, err = netip.ParsePrefix(f.AddressIPv6); err != nil || !e.Address6.Addr().Is6() {
			return fault.New(fault.Unavailable, "invalid IPv6 address %q", f.AddressIPv6)
		}
	}
	if f.MacAddress != "" {
		mac, err := net.ParseMAC(f.MacAddress)
		if err != nil || len(mac) != 6 {
			return fault.New(fault.Unavailable, "invalid MAC address %q", f.MacAddress)
		}
		if asked.MacAddress != "" && mac.String() != asked.MacAddress {
			return fault.New(fault.Unavailable, "driver modified interface MAC address: %s was asked for, not %s", asked.MacAddress, mac)
		}
		e.MAC = mac.String()
	}
	return nil
}

// inform asks for what only the plugin knows of an endpoint that it made.
func (d *Driver) inform(ctx context.Context, at place, e *network.Endpoint) error {
	var answer struct{ Value map[string]any }
	if err := askIfKnown(ctx, d.plugin, networkDriver+".EndpointOperInfo", at, &answer); err != nil {
		return err
	}
	if text, ok := answer.Value[optionMAC].(string); ok && e.MAC == "" {
		if mac, err := net.ParseMAC(text); err == nil && len(mac) == 6 {
			e.MAC = mac.String()
		}
	}
	return nil
}

// Leave has the plugin take the endpoint back.
func (d *Driver) Leave(ctx context.Context, n wire.Network, e network.Endpoint) error {
	return d.takeBack(ctx, place{n.ID, e.ID}, true)
}

// takeBack goes on whatever fails and whether ctx has ended.
func (d *Driver) takeBack(ctx context.Context, at place, joined bool) error {
	var left error
	if joined {
		left = part(ctx, d.plugin, networkDriver+".Leave", at)
	}
	return errors.Join(left, part(ctx, d.plugin, networkDriver+".DeleteEndpoint", at))
}
