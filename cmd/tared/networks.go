package main

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plugin"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/macvlan"
	"github.com/tarehq/tare/network/remote"
)

// networkOptions are the default bridge's addresses, and what new networks get
// that ask for nothing else.
type networkOptions struct {
	BIP6            netip.Prefix `json:"bip6"`
	FixedCIDR       netip.Prefix `json:"fixed-cidr"`
	FixedCIDR6      netip.Prefix `json:"fixed-cidr-v6"`
	DefaultGateway  netip.Addr   `json:"default-gateway"`
	DefaultGateway6 netip.Addr   `json:"default-gateway-v6"`
	IPv6            bool         `json:"ipv6"`
	ICC             bool         `json:"icc"`
	Masquerade      bool         `json:"ip-masq"`
	NetworkOptions  driverOpts   `json:"default-network-opts"`
}

func (n *networkOptions) flags(f *pflag.FlagSet) {
	n.NetworkOptions = driverOpts{}
	f.Var(prefixValue{&n.BIP6}, "bip6", "IPv6 address of the bridge in CIDR notation")
	f.Var(prefixValue{&n.FixedCIDR}, "fixed-cidr", "Range in the bridge's subnet that containers get their addresses from")
	f.Var(prefixValue{&n.FixedCIDR6}, "fixed-cidr-v6", "The same of IPv6")
	f.Var(addrValue{&n.DefaultGateway}, "default-gateway", "Gateway of containers on the bridge (default the bridge)")
	f.Var(addrValue{&n.DefaultGateway6}, "default-gateway-v6", "The same of IPv6")
	f.BoolVar(&n.IPv6, "ipv6", false, "IPv6 for the bridge, and for new networks that do not say")
	f.BoolVar(&n.ICC, "icc", true, "Containers on the bridge reach each other")
	f.BoolVar(&n.Masquerade, "ip-masq", true, "Containers on the bridge leave under the host's address")
	f.Var(n.NetworkOptions, "default-network-opt", "Option of new networks, DRIVER=OPTION=VALUE")
}

// check refuses what cannot be. What is asked of IPv6 turns it on no more than
// it does with dockerd.
func (n *networkOptions) check(bip netip.Prefix) error {
	for _, p := range []struct {
		flag   string
		prefix netip.Prefix
		v6     bool
	}{{"--bip6", n.BIP6, true}, {"--fixed-cidr", n.FixedCIDR, false}, {"--fixed-cidr-v6", n.FixedCIDR6, true}} {
		if p.prefix.IsValid() && p.prefix.Addr().Is6() != p.v6 {
			return fault.New(fault.Invalid, "invalid %s %s: it is of the other IP version", p.flag, p.prefix)
		}
	}
	if n.BIP6.IsValid() && n.BIP6.Masked().Addr() == n.BIP6.Addr() {
		return fault.New(fault.Invalid, "invalid --bip6 %s: this is the subnet's own address, the bridge needs one in it, such as %s", n.BIP6, netip.PrefixFrom(n.BIP6.Addr().Next(), n.BIP6.Bits()))
	}
	for _, p := range []struct {
		flag        string
		own, within netip.Prefix
	}{{"--fixed-cidr", bip, n.FixedCIDR}, {"--fixed-cidr-v6", n.BIP6, n.FixedCIDR6}} {
		if p.own.IsValid() && p.within.IsValid() && (!p.own.Masked().Contains(p.within.Masked().Addr()) || p.within.Bits() < p.own.Bits()) {
			return fault.New(fault.Invalid, "invalid %s %s: it is no range in the bridge's subnet %s", p.flag, p.within, p.own.Masked())
		}
	}
	if n.DefaultGateway.IsValid() && !n.DefaultGateway.Is4() || n.DefaultGateway6.IsValid() && !n.DefaultGateway6.Is6() {
		return fault.New(fault.Invalid, "--default-gateway wants an IPv4 address, --default-gateway-v6 an IPv6 address")
	}
	return nil
}

// networkConfig is what the networks are built on.
func networkConfig(o *options, id string, events *event.Log, plugins *plugin.Set) network.Config {
	found := remote.New(plugins)
	c := network.Config{
		Root: filepath.Join(o.DataRoot, "networks"), Bridge: o.Bridge, BIP: o.bip, BIP6: o.BIP6, FixedCIDR: o.FixedCIDR, FixedCIDR6: o.FixedCIDR6,
		DefaultGateway: o.DefaultGateway, DefaultGateway6: o.DefaultGateway6, NoICC: !o.ICC, NoMasquerade: !o.Masquerade, BindIP: o.PublishIP,
		MTU: o.MTU, IPv6: o.IPv6, NetworkOptions: o.NetworkOptions, Identity: o.DataRoot, HostID: id, ForwardAll: o.ForwardAll, Spare: spares, Events: events,
		Drivers: map[string]network.Driver{macvlan.Macvlan: macvlan.New(macvlan.Macvlan), macvlan.IPvlan: macvlan.New(macvlan.IPvlan)},
		Plugin:  found.Network, IPAM: found.Addresses,
	}
	if m := o.ids.Remap; m != nil {
		c.NewNS = func() (*os.File, error) { return userns.MakeNetwork(m) }
	}
	if o.Bridge == noBridge {
		c.Bridge = ""
	}
	for _, p := range o.Pools {
		c.Pools = append(c.Pools, network.Pool{Base: p.Base, Size: p.Size})
	}
	o.firewallOptions.apply(&c)
	return c
}

// prefixValue is a flag that holds an address with a length.
type prefixValue struct{ prefix *netip.Prefix }

func (v prefixValue) Set(s string) (err error) {
	if *v.prefix, err = netip.ParsePrefix(s); err != nil {
		return fault.New(fault.Invalid, "%q is no address with the length of its subnet, such as 172.20.0.1/16", s)
	}
	return nil
}

func (v prefixValue) Type() string { return "prefix" }
func (v prefixValue) String() string {
	if !v.prefix.IsValid() {
		return ""
	}
	return v.prefix.String()
}

// driverOpts are options of networks by driver: DRIVER=OPTION=VALUE.
type driverOpts map[string]map[string]string

func (v driverOpts) Set(s string) error {
	driver, rest, _ := strings.Cut(s, "=")
	key, value, found := strings.Cut(rest, "=")
	if driver == "" || key == "" || !found {
		return fault.New(fault.Invalid, "invalid key value pair format: %q: want DRIVER=OPTION=VALUE", s)
	}
	if v[driver] == nil {
		v[driver] = map[string]string{}
	}
	v[driver][key] = value
	return nil
}

func (v driverOpts) Type() string { return "mapmap" }

func (v driverOpts) String() string {
	var out []string
	for _, driver := range slices.Sorted(maps.Keys(v)) {
		for _, key := range slices.Sorted(maps.Keys(v[driver])) {
			out = append(out, fmt.Sprintf("%s=%s=%s", driver, key, v[driver][key]))
		}
	}
	return strings.Join(out, " ")
}
