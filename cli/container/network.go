package container

import (
	"encoding/csv"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// networks is the flag --network: a name, or fields such as
// name=N,alias=A,ip=X. The first one is the container's network mode.
type networks []attachment

type attachment struct {
	name     string
	fields   bool // was given as fields
	settings client.EndpointSettings
}

func (n *networks) String() string { return "" }
func (n *networks) Type() string   { return "network" }

func (n *networks) Set(s string) error {
	if !strings.Contains(s, "=") {
		*n = append(*n, attachment{name: s})
		return nil
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return err
	}
	a := attachment{fields: true}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok || key == "" {
			return fault.New(fault.Invalid, "invalid key/value pair format in driver options")
		}
		e := &a.settings
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "name":
			a.name = value
		case "alias":
			e.Aliases = append(e.Aliases, value)
		case "ip":
			addresses(e).IPv4Address = value
		case "ip6":
			addresses(e).IPv6Address = value
		case "link-local-ip":
			addresses(e).LinkLocalIPs = append(addresses(e).LinkLocalIPs, value)
		case "mac-address":
			e.MacAddress = value
		case "driver-opt":
			setValue(&e.DriverOpts, value)
		case "gw-priority":
			if e.GwPriority, err = strconv.Atoi(value); err != nil {
				return fault.New(fault.Invalid, "invalid gw-priority: %s", value)
			}
		default:
			return fault.New(fault.Invalid, "invalid field key %s", key)
		}
	}
	if a.name == "" {
		return fault.New(fault.Invalid, "network name/id is not specified")
	}
	*n = append(*n, a)
	return nil
}

func addresses(e *client.EndpointSettings) *client.EndpointIPAMConfig {
	if e.IPAMConfig == nil {
		e.IPAMConfig = &client.EndpointIPAMConfig{}
	}
	return e.IPAMConfig
}

// fillNetwork adds the networks and what concerns names. The flags --ip,
// --mac-address, --network-alias and --link belong to the first network.
func (c *createFlags) fillNetwork(r *client.CreateRequest) error {
	h := r.HostConfig
	h.ExtraHosts, h.Dns, h.DnsSearch, h.DnsOptions, h.Links = c.hosts.Values, c.dns.Values, c.dnsSearch.Values, c.dnsOptions.Values, c.links.Values
	if c.mac != "" {
		if _, err := net.ParseMAC(c.mac); err != nil {
			return fault.New(fault.Invalid, "%s is not a valid mac address", c.mac)
		}
	}
	list := c.networks
	if len(list) == 0 {
		list = networks{{name: "default"}}
	}
	h.NetworkMode = list[0].name
	if err := c.applyToFirst(&list[0]); err != nil {
		return err
	}
	if err := c.applyRates(list); err != nil {
		return err
	}
	endpoints := map[string]*client.EndpointSettings{}
	for i := range list {
		name := list[i].name
		if _, twice := endpoints[name]; twice {
			return fault.New(fault.Invalid, "network %q is specified multiple times", name)
		}
		endpoints[name] = &list[i].settings
	}
	for i := range list {
		name := list[i].name
		if other := strings.HasPrefix(name, "container:"); len(list) > 1 && (name == "host" || name == "none" || other) {
			return fault.New(fault.Invalid, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if plain := list[i].settings; !list[i].fields && isEmpty(&plain) && (len(list) == 1) && !isUserDefined(name) {
			delete(endpoints, name)
		}
	}
	if len(endpoints) > 0 {
		r.NetworkingConfig = &client.NetworkingConfig{EndpointsConfig: endpoints}
	}
	return nil
}

func (c *createFlags) applyToFirst(a *attachment) error {
	conflict := func(flag, field string, given, inFields bool) error {
		if given && inFields {
			return fault.New(fault.Invalid, "conflicting options: cannot specify both --%s and per-network %s", flag, field)
		}
		return nil
	}
	e := &a.settings
	ipam := e.IPAMConfig
	if ipam == nil {
		ipam = &client.EndpointIPAMConfig{}
	}
	for _, err := range []error{
		conflict("network-alias", "alias", len(c.aliases.Values) > 0, len(e.Aliases) > 0),
		conflict("ip", "IPv4 address", c.ip != "", ipam.IPv4Address != ""),
		conflict("ip6", "IPv6 address", c.ip6 != "", ipam.IPv6Address != ""),
		conflict("mac-address", "MAC address", c.mac != "", e.MacAddress != ""),
		conflict("link-local-ip", "link-local IP addresses", len(c.linkLocal.Values) > 0, len(ipam.LinkLocalIPs) > 0),
	} {
		if err != nil {
			return err
		}
	}
	if isUserDefined(a.name) {
		e.Links = c.links.Values
	} else if len(c.aliases.Values) > 0 {
		return fault.New(fault.Invalid, "network-scoped alias is supported only for containers in user defined networks")
	}
	e.Aliases = append(e.Aliases, c.aliases.Values...)
	for _, ip := range []string{c.ip, c.ip6} {
		if ip != "" && net.ParseIP(ip) == nil {
			return fault.New(fault.Invalid, "invalid IP address: %s", ip)
		}
	}
	if c.ip != "" {
		addresses(e).IPv4Address = c.ip
	}
	if c.ip6 != "" {
		addresses(e).IPv6Address = c.ip6
	}
	if len(c.linkLocal.Values) > 0 {
		addresses(e).LinkLocalIPs = c.linkLocal.Values
	}
	if c.mac != "" {
		e.MacAddress = c.mac
	}
	return nil
}

// applyRates adds the rates to the networks that they are for.
func (c *createFlags) applyRates(list networks) error {
	for _, name := range c.rates.Networks() {
		if name != "" && !slices.ContainsFunc(list, func(a attachment) bool { return a.name == name }) {
			return fault.New(fault.Invalid, "the container has a network rate for %s, and no --network %s", name, name)
		}
	}
	for i := range list {
		e := &list[i].settings
		for key, value := range c.rates.Options(list[i].name) {
			if e.DriverOpts == nil {
				e.DriverOpts = map[string]string{}
			}
			e.DriverOpts[key] = value
		}
	}
	return nil
}

func isEmpty(e *client.EndpointSettings) bool {
	return e.IPAMConfig == nil && e.MacAddress == "" && len(e.Aliases) == 0 && len(e.Links) == 0 && len(e.DriverOpts) == 0 && e.GwPriority == 0
}

// isUserDefined is false for the networks that every daemon has.
func isUserDefined(name string) bool {
	switch name {
	case "default", "bridge", "host", "none":
		return false
	}
	return !strings.HasPrefix(name, "container:")
}
