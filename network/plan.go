package network

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
)

// planner makes of a request the network that shall be.
type planner struct {
	lans    *lans
	drivers *drivers
	ipv6    bool                         // of networks that do not say
	options map[string]map[string]string // of those that do not set them, by driver
}

// plan gives the network that is asked for, with every default resolved but for
// the addresses.
func (p *planner) plan(ctx context.Context, req wire.CreateRequest) (*lan, error) {
	if err := checkCreate(req); err != nil {
		return nil, err
	}
	l := &lan{record: record{Network: wire.Network{
		Name: req.Name, ID: newID(), Created: time.Now(), Scope: "local", Driver: req.Driver, EnableIPv4: true, EnableIPv6: p.ipv6,
		Internal: req.Internal, Attachable: req.Attachable, ConfigOnly: req.ConfigOnly, Options: maps.Clone(req.Options), Labels: maps.Clone(req.Labels),
	}}}
	n := &l.Network
	if n.Driver == "" {
		n.Driver = networkBridge
	}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	if req.IPAM != nil {
		n.IPAM = *req.IPAM
		n.IPAM.Config = slices.Clone(req.IPAM.Config)
	}
	if n.IPAM.Driver == "" {
		n.IPAM.Driver = "default"
	}
	if req.ConfigFrom != nil && req.ConfigFrom.Network != "" {
		if err := p.configure(n, req); err != nil {
			return nil, err
		}
	} else if !req.ConfigOnly {
		for key, value := range p.options[n.Driver] {
			if _, set := n.Options[key]; !set {
				n.Options[key] = value
			}
		}
	}
	return l, p.settle(ctx, l, req)
}

// settle reads the options, by the driver that there is.
func (p *planner) settle(ctx context.Context, l *lan, req wire.CreateRequest) (err error) {
	n := &l.Network
	for key, at := range map[string]struct {
		asked *bool
		on    *bool
	}{optionEnable4: {req.EnableIPv4, &n.EnableIPv4}, optionEnable6: {req.EnableIPv6, &n.EnableIPv6}} {
		value, set := n.Options[key]
		switch {
		case at.asked != nil:
			*at.on = *at.asked
			delete(n.Options, key)
		case set:
			on, err := readSwitch(value)
			if err != nil {
				return fault.New(fault.Invalid, "driver-opt %q is not a valid bool", key)
			}
			*at.on = *on
		}
	}
	if err := checkIPAM(n.IPAM.Config, n.EnableIPv6); err != nil {
		return err
	}
	if !n.EnableIPv4 && !n.EnableIPv6 {
		return fault.New(fault.Invalid, "IPv4 or IPv6 must be enabled")
	}
	n.IPAM.Config = slices.DeleteFunc(n.IPAM.Config, func(c wire.IPAMConfig) bool {
		return c.Subnet.IsValid() && (c.Subnet.Addr().Is6() && !n.EnableIPv6 || c.Subnet.Addr().Is4() && !n.EnableIPv4)
	})
	if n.ConfigOnly {
		n.Driver = driverNull
		return nil
	}
	return p.settleDriver(ctx, l)
}

func (p *planner) settleDriver(ctx context.Context, l *lan) (err error) {
	if l.Driver == networkBridge {
		if l.opts, err = readBridgeOptions(l.Options); err != nil {
			return err
		}
		for _, mode := range []string{l.opts.mode4, l.opts.mode6} {
			if mode == modeIsolated && !l.Internal {
				return fault.New(fault.Internal, "gateway mode 'isolated' can only be used for an internal network")
			}
		}
		if l.Bridge = l.opts.name; l.Bridge == "" {
			l.Bridge = "br-" + l.ID[:12]
		}
		return nil
	}
	d, err := p.drivers.find(ctx, l.Driver)
	if err != nil {
		return err
	}
	l.setDriver(d)
	return d.Check(ctx, &l.Network)
}

// configure takes what a network of configuration says.
func (p *planner) configure(n *wire.Network, req wire.CreateRequest) error {
	if req.EnableIPv4 != nil && !*req.EnableIPv4 || req.EnableIPv6 != nil && *req.EnableIPv6 || len(req.Labels) > 0 ||
		req.IPAM != nil && (len(req.IPAM.Config) > 0 || len(req.IPAM.Options) > 0 || req.IPAM.Driver != "" && req.IPAM.Driver != "default") {
		return fault.New(fault.Forbidden, "user-specified configurations are not supported if the network depends on a configuration network")
	}
	if len(req.Options) > 0 {
		return fault.New(fault.Forbidden, "network driver options are not supported if the network depends on a configuration network")
	}
	from := p.lans.named(req.ConfigFrom.Network)
	if from == nil || !from.ConfigOnly || !p.lans.isUp(from) {
		return fault.New(fault.NotFound, "configuration network %q does not exist", req.ConfigFrom.Network)
	}
	n.ConfigFrom = wire.ConfigReference{Network: from.Name}
	n.EnableIPv4, n.EnableIPv6 = from.EnableIPv4, from.EnableIPv6
	n.Options, n.Labels = maps.Clone(from.Options), maps.Clone(from.Labels)
	n.IPAM = from.IPAM
	n.IPAM.Config = slices.Clone(from.IPAM.Config)
	return nil
}

// checkCreate refuses what no network can be.
func checkCreate(req wire.CreateRequest) error {
	switch {
	case strings.TrimSpace(req.Name) == "":
		return fault.New(fault.Invalid, "invalid name: name is empty")
	case predefined(req.Name):
		return fault.New(fault.Forbidden, "operation is not permitted on predefined %s network ", req.Name)
	case strings.ContainsFunc(req.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fault.New(fault.Invalid, "invalid name: %q has a control character", req.Name)
	case req.ConfigOnly && (req.Ingress || req.Internal || req.Attachable || req.Scope != ""):
		return fault.New(fault.Forbidden, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	case req.ConfigOnly && req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return fault.New(fault.Forbidden, "a configuration network cannot depend on another configuration network")
	case req.Ingress:
		return fault.New(fault.Forbidden, "Ingress network can only be global scope network")
	case req.Scope == "swarm":
		return fault.New(fault.Forbidden, "cannot create a swarm scoped network when swarm is not active")
	case req.Scope != "" && req.Scope != "local":
		return fault.New(fault.Invalid, "invalid scope %q: there are local networks only", req.Scope)
	}
	return nil
}

// checkIPAM checks the addresses that were asked for, with Docker's words.
func checkIPAM(configs []wire.IPAMConfig, v6 bool) error {
	var wrong []string
	for _, c := range configs {
		if !c.Subnet.IsValid() {
			if c.IPRange.IsValid() || c.Gateway.IsValid() || len(c.AuxAddress) > 0 {
				wrong = append(wrong, "invalid subnet : invalid CIDR block notation")
			}
			continue
		}
		if c.Subnet.Addr().Is6() && !v6 {
			continue
		}
		wrong = append(wrong, checkConfig(c)...)
	}
	switch len(wrong) {
	case 0:
		return nil
	case 1:
		return fault.New(fault.Invalid, "invalid network config:\n%s", wrong[0])
	}
	return fault.New(fault.Invalid, "invalid network config:\n* %s", strings.Join(wrong, "\n* "))
}

func checkConfig(c wire.IPAMConfig) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	family := "IPv4"
	if c.Subnet.Addr().Is6() {
		family = "IPv6"
	}
	if c.Subnet != c.Subnet.Masked() {
		say("invalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
	}
	if c.Subnet.Addr().Is6() {
		if err := checkSubnet6(c.Subnet); err != nil {
			say("%s", err)
		}
	}
	if r := c.IPRange; r.IsValid() {
		switch {
		case r.Addr().Is6() != c.Subnet.Addr().Is6():
			say("invalid ip-range %s: parent subnet is an %s block", r, family)
		default:
			if r.Bits() < c.Subnet.Bits() {
				say("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, c.Subnet)
			}
			if r != r.Masked() {
				say("invalid ip-range %s: it should be %s", r, r.Masked())
			}
			if !c.Subnet.Overlaps(r) {
				say("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, c.Subnet)
			}
		}
	}
	inside := func(what string, a netip.Addr) {
		switch {
		case !a.IsValid():
		case a.Is6() != c.Subnet.Addr().Is6():
			say("invalid %s: parent subnet is an %s block", what, family)
		case !c.Subnet.Contains(a) && !c.Subnet.Addr().IsUnspecified():
			say("invalid %s: parent subnet %s doesn't contain this address", what, c.Subnet)
		}
	}
	inside(fmt.Sprintf("gateway %s", c.Gateway), c.Gateway)
	for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
		inside("auxiliary address "+name, c.AuxAddress[name])
	}
	return wrong
}

// checkSubnet6 refuses what cannot be a network's IPv6 subnet.
func checkSubnet6(p netip.Prefix) error {
	linkLocal := netip.MustParsePrefix("fe80::/64")
	switch {
	case !p.Addr().Is6() || p.Addr().Is4In6():
		return fault.New(fault.Invalid, "'%s' is not a valid IPv6 subnet", p)
	case p.Addr().IsMulticast():
		return fault.New(fault.Invalid, "multicast subnet '%s' is not allowed", p)
	case p.Masked() != linkLocal && linkLocal.Overlaps(p) && !p.Addr().IsUnspecified():
		return fault.New(fault.Invalid, "'%s' clashes with the Link-Local prefix 'fe80::/64'", p)
	}
	return nil
}
