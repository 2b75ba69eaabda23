package network

import (
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/firewalld"
)

// Rules prints the wanted firewall rules as nft would.
func (s *Service) Rules() string { return s.rules.wanted().String() }

// Exposure tells who can reach which port of which container, and by which rule.
func (s *Service) Exposure() ([]firewall.Exposure, error) {
	r := s.rules
	switch without := "who reaches a container is for the host's own rules to say"; {
	case r.options.Off && r.options.Off6:
		return nil, fault.New(fault.Unavailable, "the daemon makes no rules (--iptables=false, --ip6tables=false): %s", without)
	case r.options.Off:
		return nil, fault.New(fault.Unavailable, "the daemon makes no rules of IPv4 (--iptables=false): %s", without)
	case r.options.Off6:
		return nil, fault.New(fault.Unavailable, "the daemon makes no rules of IPv6 (--ip6tables=false): %s", without)
	}
	waiting := func(b firewall.Sandbox) bool { return b.Name == "" } // nothing runs there that could be reached
	return firewall.Exposures(r.opts(), r.networks(), slices.DeleteFunc(r.ruledSandboxes(), waiting)), nil
}

// FirewallBackend tells who keeps the rules, in Docker's words.
func (s *Service) FirewallBackend() string {
	if s.cfg.NoRules && s.cfg.NoRules6 {
		return "none"
	}
	if firewalld.Running() {
		return "nftables+firewalld"
	}
	return "nftables"
}
