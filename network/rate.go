package network

import (
	"context"
	"slices"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/shape"
)

// CheckRate refuses limits on a network whose containers have no end of their
// interface on the host, where they would be held to them.
func CheckRate(n Network, r Rate) error {
	if r != (Rate{}) && n.Driver != networkBridge {
		return fault.New(fault.Invalid, "network %s of the driver %s cannot be limited in its rate: only bridge networks can", n.Name, n.Driver)
	}
	return nil
}

// restoreRates holds the interfaces of those that live on to their rates, which a
// crash may have prevented, and removes what is left of those that are gone.
func (s *Service) restoreRates() error {
	var limited []Endpoint
	for _, b := range s.sandboxes.all() {
		for _, e := range b.Endpoints {
			if e.Rate != (Rate{}) {
				limited = append(limited, e)
			}
		}
	}
	held := map[string]bool{}
	for _, e := range limited {
		held[e.HostInterface] = true
		if err := shape.Set(e.HostInterface, e.Rate); err != nil && s.host.Has(e.HostInterface) {
			return err
		}
	}
	return shape.Sweep(s.cfg.prefix(), func(host string) bool { return held[host] && s.host.Has(host) })
}

// SetRate holds a running container's interface to other limits. What is returned
// replaces the caller's copy.
func (s *Service) SetRate(ctx context.Context, b Sandbox, endpointID string, r Rate) (Sandbox, error) {
	unlock, err := s.working.Lock(ctx, b.ID)
	if err != nil {
		return b, err
	}
	defer unlock()
	after, err := s.sandboxes.get(b.ID)
	if err != nil {
		return b, err
	}
	i := slices.IndexFunc(after.Endpoints, func(e Endpoint) bool { return e.ID == endpointID })
	if i < 0 {
		return b, fault.New(fault.NotFound, "endpoint %s not found", endpointID)
	}
	e := &after.Endpoints[i]
	if err := CheckRate(Network{Network: wire.Network{Name: e.NetworkName, Driver: e.Driver}}, r); err != nil {
		return b, err
	}
	if err := shape.Set(e.HostInterface, r); err != nil {
		return b, err
	}
	e.Rate = r
	// Its ports another may have by now.
	_, now, err := s.sandboxes.change(b.ID, func(b *Sandbox) { b.Endpoints = after.Endpoints })
	if err != nil {
		return b, err
	}
	return now, nil
}
