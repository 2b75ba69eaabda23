package network

import "github.com/tarehq/tare/network/firewall"

// Rules prints the wanted firewall rules as nft would.
func (s *Service) Rules() string { return s.wanted().String() }

// Exposure tells who can reach which port of which container, and by which rule.
func (s *Service) Exposure() []firewall.Exposure {
	networks := s.networks()
	return firewall.Exposures(s.rulesFor, networks, s.ruledSandboxes())
}
