package record

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/shape"
)

// Place is a network that a container is to be on.
type Place struct {
	Network  string                    // its name; what it was called, if nobody knew it then
	ID       string                    // of the network that the last start found by that name
	Settings *wirenet.EndpointSettings // as asked for; not to be changed
}

// Places lists where the container is to be: on the network of its mode first,
// whose interface is the first, then by name.
func (r *Record) Places() []Place {
	mode := string(r.HostConfig.NetworkMode)
	if r.HostConfig.NetworkMode.IsContainer() {
		return nil
	}
	if r.Networks == nil { // nothing special was asked for
		return []Place{{Network: mode, ID: r.NetworkIDs[mode], Settings: &wirenet.EndpointSettings{}}}
	}
	names := slices.SortedFunc(maps.Keys(r.Networks), func(a, b string) int {
		switch mode {
		case a:
			return -1
		case b:
			return 1
		}
		return strings.Compare(a, b)
	})
	var list []Place
	for _, name := range names {
		list = append(list, Place{name, r.NetworkIDs[name], r.Networks[name]})
	}
	return list
}

// AllWishes is Networks with the mode's network in it, a copy.
func (r *Record) AllWishes() map[string]*wirenet.EndpointSettings {
	all := map[string]*wirenet.EndpointSettings{}
	for _, p := range r.Places() {
		all[p.Network] = p.Settings
	}
	return all
}

// The endpoints' options that have a meaning here; all others are the driver's.
const (
	OptionInterface = "com.docker.network.endpoint.ifname"
	OptionSysctls   = "com.docker.network.endpoint.sysctls"
)

// Want is what the place asks of the network.
func (p Place) Want() (network.Want, error) {
	e := p.Settings
	w := network.Want{Network: p.Network, MAC: e.MacAddress.String(), Aliases: e.Aliases, GwPriority: e.GwPriority}
	if p.ID != "" {
		w.Network = p.ID // as Docker has it: another one of the same name is another network
	}
	if i := e.IPAMConfig; i != nil {
		w.Address, w.Address6, w.LinkLocal = i.IPv4Address, i.IPv6Address, i.LinkLocalIPs
	}
	for _, text := range e.Links {
		name, alias, err := ParseLink(text)
		if err != nil {
			return w, err
		}
		if w.Links == nil {
			w.Links = map[string]string{}
		}
		w.Links[alias] = name
	}
	var err error
	if w.Rate, err = shape.FromOptions(e.DriverOpts); err != nil {
		return w, err
	}
	for key, value := range e.DriverOpts {
		switch key {
		case shape.OptionIn, shape.OptionOut, shape.OptionDelay, shape.OptionLoss:
		case OptionInterface:
			w.Interface = value
		case OptionSysctls:
			w.Sysctls = strings.Split(value, ",")
		default:
			if w.Options == nil {
				w.Options = map[string]string{}
			}
			w.Options[key] = value
		}
	}
	return w, nil
}

// Wishes leaves of endpoints what can be asked for. The rest tells what is: some
// clients send what inspect told them of another container.
func Wishes(endpoints map[string]*wirenet.EndpointSettings) map[string]*wirenet.EndpointSettings {
	var out map[string]*wirenet.EndpointSettings
	for name, e := range endpoints {
		if e == nil {
			continue
		}
		if out == nil {
			out = map[string]*wirenet.EndpointSettings{}
		}
		out[name] = Wish(e)
	}
	return out
}

// Wish leaves of one endpoint what can be asked for.
func Wish(e *wirenet.EndpointSettings) *wirenet.EndpointSettings {
	if e == nil {
		return &wirenet.EndpointSettings{}
	}
	w := &wirenet.EndpointSettings{IPAMConfig: e.IPAMConfig.Copy(), Links: e.Links, Aliases: e.Aliases, DriverOpts: e.DriverOpts,
		GwPriority: e.GwPriority, MacAddress: e.MacAddress}
	if i := w.IPAMConfig; i != nil {
		i.IPv4Address, i.IPv6Address = i.IPv4Address.Unmap(), i.IPv6Address.Unmap()
		for n := range i.LinkLocalIPs {
			i.LinkLocalIPs[n] = i.LinkLocalIPs[n].Unmap()
		}
	}
	return w
}

// NetworkIDs remembers which networks were meant by their names, but for those
// that come with the daemon.
func NetworkIDs(b *network.Sandbox) map[string]string {
	if b == nil {
		return nil
	}
	var ids map[string]string
	for _, e := range b.Endpoints {
		if len(e.DNSNames) > 0 {
			if ids == nil {
				ids = map[string]string{}
			}
			ids[e.NetworkName] = e.NetworkID
		}
	}
	return ids
}

// DnsNames are a container's on a network that has names, as Docker shows them
// also when it does not run.
func (r *Record) DnsNames(aliases []string) []string {
	names := append([]string{r.Name}, aliases...)
	names = append(names, r.ID[:min(12, len(r.ID))])
	if r.Config.Hostname != "" {
		names = append(names, r.Config.Hostname)
	}
	var once []string
	for _, n := range names {
		if !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once
}

// OnBridge is the container's endpoint on the default bridge, whose links are
// lines of hosts files; nil if it has none.
func (r *Record) OnBridge() *network.Endpoint {
	if r.Sandbox == nil {
		return nil
	}
	i := slices.IndexFunc(r.Sandbox.Endpoints, func(e network.Endpoint) bool { return e.NetworkName == wirenet.NetworkBridge })
	if i < 0 {
		return nil
	}
	return &r.Sandbox.Endpoints[i]
}

// Address is the container's own on the default bridge.
func (r *Record) Address() netip.Addr {
	if e := r.OnBridge(); e != nil {
		return e.Address.Addr()
	}
	return netip.Addr{}
}

// Link is another container that one on the default bridge knows by an alias,
// the --link of old: a line in its /etc/hosts.
type Link struct {
	Target string // ID
	Alias  string
}

// ParseLink reads NAME[:ALIAS], also in the form that inspect shows:
// /NAME:/PARENT/ALIAS.
func ParseLink(s string) (name, alias string, err error) {
	name, alias, given := strings.Cut(s, ":")
	alias = alias[strings.LastIndex(alias, "/")+1:]
	name = strings.TrimPrefix(name, "/")
	if name == "" || given && alias == "" || strings.ContainsAny(alias, ": \t\r\n") {
		return "", "", fault.New(fault.Invalid, "bad format for links: %s", s)
	}
	if !given {
		alias = name
	}
	return name, alias, nil
}

// WithoutIPv6 tells whether the container switches IPv6 off.
func (r *Record) WithoutIPv6() bool {
	return r.HostConfig.Sysctls["net.ipv6.conf.all.disable_ipv6"] == "1"
}
