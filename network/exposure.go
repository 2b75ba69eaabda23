package network

import "github.com/tarehq/tare/network/firewall"

// Rules prints the wanted firewall rules as nft would.
func (s *Service) Rules() string { return s.rules.wanted().String() }

// Exposure tells who can reach which port of which container, and by which rule.
func (s *Service) Exposure() []firewall.Exposure {
	r := s.rules
	return firewall.Exposures(r.options, r.networks(), r.ruledSandboxes())
}
