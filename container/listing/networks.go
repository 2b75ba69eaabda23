package listing

import (
	"fmt"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/network"
)

// NetworkSettings shows the container's places on its networks, and its ports.
func (s *Listing) NetworkSettings(r record.Record) *wire.NetworkSettings {
	n := &wire.NetworkSettings{Ports: portMap(r), Networks: s.endpoints(r)}
	if r.Sandbox != nil {
		n.SandboxID = r.Sandbox.ID
	}
	if r.State.Up() && !r.HostConfig.NetworkMode.IsContainer() {
		n.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", r.Pid)
	}
	return n
}

// endpoints shows the container's places on its networks, as asked for and, if it
// runs, as they are.
func (s *Listing) endpoints(r record.Record) map[string]*wirenet.EndpointSettings {
	all := map[string]*wirenet.EndpointSettings{}
	for _, p := range r.Places() {
		e := p.Settings.Copy()
		e.NetworkID = p.ID
		if !r.StartedAt.IsZero() {
			s.rest(&r, p, e)
		}
		all[p.Network] = e
	}
	if r.Sandbox == nil && !r.State.Up() {
		return all
	}
	for _, e := range r.Endpoints(s.Networks) {
		if all[e.NetworkName] == nil {
			all[e.NetworkName] = &wirenet.EndpointSettings{}
		}
		show(&e, all[e.NetworkName])
	}
	return all
}

// rest is what Docker leaves of a place when the container has run: the network
// and the names, and no address.
func (s *Listing) rest(r *record.Record, p record.Place, e *wirenet.EndpointSettings) {
	e.MacAddress = nil
	if wire.NetworkMode(p.Network).IsUserDefined() {
		e.DNSNames = r.DnsNames(e.Aliases)
	} else if n, err := s.Networks.Lookup(p.Network); err == nil {
		e.NetworkID = n.ID
	}
}

// show puts into w how the place is.
func show(e *network.Endpoint, w *wirenet.EndpointSettings) {
	w.NetworkID, w.EndpointID, w.DNSNames = e.NetworkID, e.ID, e.DNSNames
	w.Gateway, w.IPv6Gateway = e.Gateway, e.Gateway6
	if e.Address.IsValid() {
		w.IPAddress, w.IPPrefixLen = e.Address.Addr(), e.Address.Bits()
	}
	if e.Address6.IsValid() {
		w.GlobalIPv6Address, w.GlobalIPv6PrefixLen = e.Address6.Addr(), e.Address6.Bits()
	}
	_ = w.MacAddress.UnmarshalText([]byte(e.MAC)) // none on layer 3
}
