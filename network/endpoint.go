package network

import (
	"encoding/json"
	"net/netip"
	"slices"
)

// Sandbox is a container's network: its namespace with a place on each of its
// networks. It is stored by the caller as JSON, anew whenever a method returns
// it, and given back to Restore, Connect, Disconnect and Detach.
type Sandbox struct {
	ID                   string // 64 hexadecimal digits, one per network namespace
	ContainerID          string
	Name                 string // the container's
	Hostname, Domainname string
	Endpoints            []Endpoint  // in the order of their making
	Ports                []Published // lead to the gateway endpoint
	Pending              []Port      `json:",omitempty"` // to be published when there is a gateway endpoint
	Bare4, Bare6         bool        `json:",omitempty"` // no rule leads to them in the family: they are relayed
	DNS                  Resolver
	// NetNSPath is where the namespace is found, for Restore; not stored.
	NetNSPath string `json:"-"`
}

// Endpoint is a place on one network.
type Endpoint struct {
	ID                string // 64 hexadecimal digits
	NetworkID         string
	NetworkName       string
	Driver            string
	HostInterface     string // the interface pair's end on the bridge
	Interface         string // its name in the container
	MAC               string
	Address, Address6 netip.Prefix
	Gateway, Gateway6 netip.Addr        // where its default route would lead; the zero Addr without one
	LinkLocal         []netip.Addr      `json:",omitempty"`
	Internal          bool              `json:",omitempty"` // the network is
	DNSNames          []string          `json:",omitempty"` // none on the default bridge; the first one is for reverse look-ups
	Links             map[string]string `json:",omitempty"` // alias to a name on the network
	Sysctls           []string          `json:",omitempty"`
	Options           map[string]string `json:",omitempty"`
	GwPriority        int               `json:",omitempty"`
	Chosen            bool              `json:",omitempty"` // an address or the MAC was asked for
	Rate              Rate              `json:",omitzero"`
	Exposed           bool              `json:",omitempty"` // its driver publishes the container's ports
}

// On gives the endpoint on the network of the ID, nil if there is none.
func (s *Sandbox) On(networkID string) *Endpoint {
	for i := range s.Endpoints {
		if s.Endpoints[i].NetworkID == networkID {
			return &s.Endpoints[i]
		}
	}
	return nil
}

// Gateway4 and Gateway6 give the endpoint that has the default route of the
// family, nil if none has.
func (s *Sandbox) Gateway4() *Endpoint {
	return s.first(func(e *Endpoint) bool { return e.Gateway.IsValid() })
}

// Gateway6 is Gateway4's counterpart.
func (s *Sandbox) Gateway6() *Endpoint {
	return s.first(func(e *Endpoint) bool { return e.Gateway6.IsValid() })
}

// publishes tells whether ports can be published: a driver's networks have no
// ports of the host.
func (s *Sandbox) publishes() bool {
	for _, e := range []*Endpoint{s.Gateway4(), s.Gateway6()} {
		if e != nil && e.Driver == networkBridge {
			return true
		}
	}
	return false
}

// HasNames tells whether the sandbox is on a network with names.
func (s *Sandbox) HasNames() bool {
	return slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return len(e.DNSNames) > 0 })
}

// first gives the endpoint that comes first among those that have what is
// asked.
func (s *Sandbox) first(has func(*Endpoint) bool) (best *Endpoint) {
	for i := range s.Endpoints {
		if e := &s.Endpoints[i]; has(e) && (best == nil || e.Before(best)) {
			best = e
		}
	}
	return best
}

// Before tells whether e rather than f has the default route: by priority, then
// one that has both families, then by the network's name.
func (e *Endpoint) Before(f *Endpoint) bool {
	both := func(e *Endpoint) bool { return e.Gateway.IsValid() && e.Gateway6.IsValid() }
	switch {
	case e.GwPriority != f.GwPriority:
		return e.GwPriority > f.GwPriority
	case both(e) != both(f):
		return both(e)
	}
	return e.NetworkName < f.NetworkName
}

// UnmarshalJSON also reads what was stored when a container had one endpoint
// and no other network than the default bridge.
func (s *Sandbox) UnmarshalJSON(data []byte) error {
	type plain Sandbox
	var stored struct {
		plain
		SandboxID, NetworkID, HostInterface, MAC string
		Address                                  netip.Prefix
		Gateway                                  netip.Addr
	}
	if err := json.Unmarshal(data, &stored); err != nil {
		return err
	}
	*s = Sandbox(stored.plain)
	if stored.SandboxID == "" {
		return nil
	}
	s.Endpoints = []Endpoint{{
		ID: s.ID, NetworkID: stored.NetworkID, NetworkName: networkBridge, Driver: networkBridge,
		HostInterface: stored.HostInterface, Interface: "eth0", MAC: stored.MAC, Address: stored.Address, Gateway: stored.Gateway,
	}}
	s.ID = stored.SandboxID
	return nil
}
