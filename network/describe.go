package network

import (
	"net"
	"net/netip"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/network/ipam"
)

// Network is one as it stands, a copy.
type Network struct {
	wire.Network
	// Predefined networks come with the daemon: bridge, host and none.
	Predefined bool
	// Bridge is its interface on the host, "" for other drivers.
	Bridge string
	static []netip.Prefix
}

// HasNames tells whether containers on the network find each other by name.
func (n Network) HasNames() bool { return !n.Predefined }

// Lookup finds a network by its name, ID or unambiguous beginning of the ID.
// "" and "default" are the default bridge. An unknown one is fault.NotFound. It
// costs a look into a map.
func (s *Service) Lookup(nameOrID string) (Network, error) {
	l, err := s.lans.find(nameOrID)
	if err != nil {
		return Network{}, err
	}
	return Network{l.describe(), predefined(l.Name), l.Bridge, l.Static}, nil
}

// List describes the networks, without their containers, the oldest first.
func (s *Service) List() []wire.Summary {
	var out []wire.Summary
	for _, l := range s.lans.all() {
		if s.lans.isUp(l) {
			out = append(out, wire.Summary{Network: l.describe()})
		}
	}
	return out
}

// InUse tells whether a container is on the network.
func (s *Service) InUse(id string) bool {
	return s.lans.inUse(id)
}

// Inspect describes the network of the name, ID or unambiguous beginning of an
// ID, with its containers. An unknown one is fault.NotFound.
func (s *Service) Inspect(nameOrID string) (wire.Inspect, error) {
	l, err := s.lans.find(nameOrID)
	if err != nil {
		return wire.Inspect{}, err
	}
	out := wire.Inspect{Network: l.describe(), Containers: map[string]wire.EndpointResource{}, Status: &wire.Status{IPAM: s.usage(l)}}
	for _, b := range s.sandboxes.all() {
		e := b.On(l.ID)
		if e == nil {
			continue
		}
		mac, _ := net.ParseMAC(e.MAC) // checked by Attach
		out.Containers[b.ContainerID] = wire.EndpointResource{
			Name: b.Name, EndpointID: e.ID, MacAddress: wire.HardwareAddr(mac), IPv4Address: e.Address, IPv6Address: e.Address6,
		}
	}
	return out, nil
}

// usage tells how many of the lan's addresses are in use; those that only
// wait for a container are not.
func (s *Service) usage(l *lan) wire.IPAMStatus {
	status := wire.IPAMStatus{Subnets: wire.SubnetStatuses{}}
	for _, n := range l.subnets() {
		if pool, ok := n.source.(*ipam.Subnet); ok {
			used, free := pool.Usage()
			for _, b := range s.sandboxes.unused() {
				if b.On(l.ID) != nil {
					used, free = used-1, max(free, free+1)
				}
			}
			status.Subnets[pool.Prefix()] = wire.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: free}
		}
	}
	return status
}
