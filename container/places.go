package container

import (
	"maps"
	"slices"
	"strings"

	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/shape"
)

// Places are the containers' places on networks: Connect and Disconnect change
// them, running or not.
type Places struct{ containers *Service }

// Places are those of all containers.
func (s *Service) Places() *Places { return &Places{s} }

// place is a network that a container is to be on.
type place struct {
	network  string                    // its name; what it was called, if nobody knew it then
	id       string                    // of the network that the last start found by that name
	settings *wirenet.EndpointSettings // as asked for; not to be changed
}

// places lists where the container is to be: on the network of its mode first,
// whose interface is the first, then by name.
func (r *Record) places() []place {
	mode := string(r.HostConfig.NetworkMode)
	if r.HostConfig.NetworkMode.IsContainer() {
		return nil
	}
	if r.Networks == nil { // nothing special was asked for
		return []place{{network: mode, id: r.NetworkIDs[mode], settings: &wirenet.EndpointSettings{}}}
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
	var list []place
	for _, name := range names {
		list = append(list, place{name, r.NetworkIDs[name], r.Networks[name]})
	}
	return list
}

// allWishes is Networks with the mode's network in it, a copy.
func (r *Record) allWishes() map[string]*wirenet.EndpointSettings {
	all := map[string]*wirenet.EndpointSettings{}
	for _, p := range r.places() {
		all[p.network] = p.settings
	}
	return all
}

// The endpoints' options that have a meaning here; all others are the driver's.
const (
	optionInterface = "com.docker.network.endpoint.ifname"
	optionSysctls   = "com.docker.network.endpoint.sysctls"
)

// want is what the place asks of the network.
func (p place) want() (network.Want, error) {
	e := p.settings
	w := network.Want{Network: p.network, MAC: e.MacAddress.String(), Aliases: e.Aliases, GwPriority: e.GwPriority}
	if p.id != "" {
		w.Network = p.id // as Docker has it: another one of the same name is another network
	}
	if i := e.IPAMConfig; i != nil {
		w.Address, w.Address6, w.LinkLocal = i.IPv4Address, i.IPv6Address, i.LinkLocalIPs
	}
	for _, text := range e.Links {
		name, alias, err := parseLink(text)
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
		case optionInterface:
			w.Interface = value
		case optionSysctls:
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

// wishes leaves of endpoints what can be asked for. The rest tells what is: some
// clients send what inspect told them of another container.
func wishes(endpoints map[string]*wirenet.EndpointSettings) map[string]*wirenet.EndpointSettings {
	var out map[string]*wirenet.EndpointSettings
	for name, e := range endpoints {
		if e == nil {
			continue
		}
		if out == nil {
			out = map[string]*wirenet.EndpointSettings{}
		}
		out[name] = wish(e)
	}
	return out
}

func wish(e *wirenet.EndpointSettings) *wirenet.EndpointSettings {
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

// networkIDs remembers which networks were meant by their names, but for those
// that come with the daemon.
func networkIDs(b *network.Sandbox) map[string]string {
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

// dnsNames are a container's on a network that has names, as Docker shows them
// also when it does not run.
func (r *Record) dnsNames(aliases []string) []string {
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

// errShared is Docker's refusal of a second network beside another's.
var errShared = fault.New(fault.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")
