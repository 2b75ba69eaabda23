package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Create is the command network create.
func Create() *command.Command {
	f := command.NewFlags()
	o := &create{flags: f}
	f.StringVarP(&o.driver, "driver", "d", "bridge", "Driver to manage the Network")
	o.opts = option.NewList(f, "opt", "o", "Set driver specific options", nil)
	o.labels = option.NewList(f, "label", "", "Set metadata on a network", option.CheckLabel)
	f.BoolVar(&o.internal, "internal", false, "Restrict external access to the network")
	f.BoolVar(&o.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	f.BoolVar(&o.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	f.BoolVar(&o.attachable, "attachable", false, "Enable manual container attachment")
	f.BoolVar(&o.ingress, "ingress", false, "Create swarm routing-mesh network")
	f.StringVar(&o.scope, "scope", "", "Control the network's scope")
	f.BoolVar(&o.configOnly, "config-only", false, "Create a configuration only network")
	f.StringVar(&o.configFrom, "config-from", "", "The network from which to copy the configuration")
	f.StringVar(&o.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	o.subnets = option.NewList(f, "subnet", "", "Subnet in CIDR format that represents a network segment", nil)
	o.ranges = option.NewList(f, "ip-range", "", "Allocate container ip from a sub-range", nil)
	o.gateways = option.NewList(f, "gateway", "", "IPv4 or IPv6 Gateway for the master subnet", nil)
	o.aux = option.NewList(f, "aux-address", "", "Auxiliary IPv4 or IPv6 addresses used by Network driver", nil)
	o.ipamOpts = option.NewList(f, "ipam-opt", "", "Set IPAM driver specific options", nil)
	return &command.Command{Usage: "[OPTIONS] NETWORK", MinArgs: 1, MaxArgs: 1, Flags: f,
		Example: "tare network create --subnet 10.20.0.0/24 backend", Run: o.run}
}

type create struct {
	flags                                 *pflag.FlagSet
	driver, scope, configFrom, ipamDriver string
	internal, ipv4, ipv6, attachable      bool
	ingress, configOnly                   bool
	opts, labels, aux, ipamOpts           *option.List
	subnets, ranges, gateways             *option.List
}

func (o *create) run(ctx context.Context, s *command.Session, args []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	r := &client.NetworkCreateRequest{Name: args[0], Driver: o.driver, Scope: o.scope, Internal: o.internal, Attachable: o.attachable,
		Ingress: o.ingress, ConfigOnly: o.configOnly, Options: o.opts.Map(), Labels: o.labels.Map()}
	if o.flags.Changed("ipv4") {
		r.EnableIPv4 = &o.ipv4
	}
	if o.flags.Changed("ipv6") {
		r.EnableIPv6 = &o.ipv6
	}
	if o.configFrom != "" {
		r.ConfigFrom = &client.NetworkReference{Network: o.configFrom}
	}
	r.IPAM = &client.IPAM{Driver: o.ipamDriver, Options: o.ipamOpts.Map()}
	if r.IPAM.Config, err = o.pools(); err != nil {
		return err
	}
	id, warning, err := cl.NetworkCreate(ctx, r)
	if err != nil {
		return err
	}
	if warning != "" {
		fmt.Fprintf(s.Err, "WARNING: %s\n", warning)
	}
	_, err = fmt.Fprintln(s.Out, id)
	return err
}

// pool is a subnet as it was written, with what belongs to it.
type pool struct {
	subnet netip.Prefix
	config client.IPAMConfig
}

// pools gives each range, gateway and auxiliary address to the subnet that it
// lies in.
func (o *create) pools() ([]client.IPAMConfig, error) {
	subnets, ranges, gateways := commas(o.subnets), commas(o.ranges), commas(o.gateways)
	if len(subnets) < len(ranges) || len(subnets) < len(gateways) {
		return nil, fault.New(fault.Invalid, "every ip-range or gateway must have a corresponding subnet")
	}
	var list []pool
	for _, text := range subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid subnet: invalid CIDR address: %s", text)
		}
		for _, other := range list {
			if other.subnet.Overlaps(p) {
				return nil, fault.New(fault.Invalid, "multiple overlapping subnet configuration is not supported")
			}
		}
		list = append(list, pool{p, client.IPAMConfig{Subnet: text}})
	}
	for _, text := range ranges {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid argument %q for \"--ip-range\" flag: invalid string being converted to CIDR: %s", text, text)
		}
		if err := place(list, p.Addr(), "ranges", "range", text, func(c *client.IPAMConfig) *string { return &c.IPRange }); err != nil {
			return nil, err
		}
	}
	for _, text := range gateways {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid argument %q for \"--gateway\" flag: invalid string being converted to IP address: %s", text, text)
		}
		if err := place(list, a, "gateways", "gateway", text, func(c *client.IPAMConfig) *string { return &c.Gateway }); err != nil {
			return nil, err
		}
	}
	for name, text := range o.aux.Map() {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid aux-address %s=%s: give it as NAME=ADDRESS", name, text)
		}
		i := within(list, a)
		if i < 0 {
			return nil, fault.New(fault.Invalid, "no matching subnet for aux-address %s", text)
		}
		c := &list[i].config
		if c.AuxiliaryAddresses == nil {
			c.AuxiliaryAddresses = map[string]string{}
		}
		c.AuxiliaryAddresses[name] = text
	}
	var out []client.IPAMConfig
	for _, p := range list {
		out = append(out, p.config)
	}
	return out, nil
}

// place sets a field of the subnet that the address lies in, which may have one
// value.
func place(list []pool, a netip.Addr, plural, singular, text string, field func(*client.IPAMConfig) *string) error {
	i := within(list, a)
	if i < 0 {
		return fault.New(fault.Invalid, "no matching subnet for %s %s", singular, text)
	}
	f := field(&list[i].config)
	if *f != "" {
		preposition := "on"
		if singular == "gateway" {
			preposition = "for"
		}
		return fault.New(fault.Invalid, "cannot configure multiple %s (%s, %s) %s the same subnet (%s)", plural, text, *f, preposition, list[i].config.Subnet)
	}
	*f = text
	return nil
}

// within is the index of the subnet that has the address, -1 for none.
func within(list []pool, a netip.Addr) int {
	for i := range list {
		if list[i].subnet.Contains(a.Unmap()) {
			return i
		}
	}
	return -1
}

// commas lists the values of a flag that may hold several by commas.
func commas(l *option.List) []string {
	var out []string
	for _, v := range l.Values {
		for _, part := range strings.Split(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}
