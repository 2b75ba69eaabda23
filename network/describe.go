package network

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
)

// The networks that always exist.
const (
	networkBridge = "bridge"
	networkHost   = "host"
	networkNone   = "none"
)

var networkNames = [...]string{networkBridge, networkHost, networkNone}

// List describes the networks, without their containers.
func (s *Service) List() []wire.Summary {
	var out []wire.Summary
	for _, name := range networkNames {
		out = append(out, wire.Summary{Network: s.describe(name)})
	}
	return out
}

// Inspect describes the network of the name, ID or unambiguous beginning of an
// ID, with its containers. An unknown one is fault.NotFound.
func (s *Service) Inspect(nameOrID string) (wire.Inspect, error) {
	name, err := s.resolve(nameOrID)
	if err != nil {
		return wire.Inspect{}, err
	}
	out := wire.Inspect{Network: s.describe(name), Containers: map[string]wire.EndpointResource{}}
	if name != networkBridge {
		return out, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.sandboxes {
		e := b.On(out.ID)
		if e == nil {
			continue
		}
		mac, _ := net.ParseMAC(e.MAC) // checked by Attach
		out.Containers[b.ContainerID] = wire.EndpointResource{
			Name: b.Name, EndpointID: e.ID, MacAddress: wire.HardwareAddr(mac), IPv4Address: e.Address,
		}
	}
	return out, nil
}

// resolve finds the name of a network.
func (s *Service) resolve(nameOrID string) (string, error) {
	var found []string
	for _, name := range networkNames {
		if name == nameOrID {
			return name, nil
		}
		if nameOrID != "" && strings.HasPrefix(s.networkID(name), nameOrID) {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return "", fault.New(fault.NotFound, "network %s not found", nameOrID)
	case 1:
		return found[0], nil
	}
	return "", fault.New(fault.Invalid, "network %s is ambiguous (%d matches found based on ID prefix)", nameOrID, len(found))
}

func (s *Service) describe(name string) wire.Network {
	n := wire.Network{
		Name: name, ID: s.networkID(name), Created: s.created, Scope: "local", Driver: name,
		EnableIPv4: true, IPAM: wire.IPAM{Driver: "default", Config: []wire.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}
	switch name {
	case networkNone:
		n.Driver = "null"
	case networkBridge:
		n.IPAM.Config = append(n.IPAM.Config, wire.IPAMConfig{Subnet: s.bridge.address.Masked(), Gateway: s.Gateway()})
		n.Options = map[string]string{
			"com.docker.network.bridge.default_bridge":       "true",
			"com.docker.network.bridge.enable_icc":           "true",
			"com.docker.network.bridge.enable_ip_masquerade": "true",
			"com.docker.network.bridge.host_binding_ipv4":    netip.IPv4Unspecified().String(),
			"com.docker.network.bridge.name":                 s.bridge.name,
			"com.docker.network.driver.mtu":                  strconv.Itoa(s.bridge.mtu),
		}
	}
	return n
}
