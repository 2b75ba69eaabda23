package network

import (
	"context"
	"slices"

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

// SetRate holds a running container's interface to other limits.
func (s *Service) SetRate(_ context.Context, b Sandbox, endpointID string, r Rate) (Sandbox, error) {
	b.Endpoints = slices.Clone(b.Endpoints)
	i := slices.IndexFunc(b.Endpoints, func(e Endpoint) bool { return e.ID == endpointID })
	if i < 0 {
		return b, fault.New(fault.NotFound, "endpoint %s not found", endpointID)
	}
	e := &b.Endpoints[i]
	if e.Driver != networkBridge {
		return b, fault.New(fault.Invalid, "network %s of the driver %s cannot be limited in its rate: only bridge networks can", e.NetworkName, e.Driver)
	}
	if err := shape.Set(e.HostInterface, r); err != nil {
		return b, err
	}
	e.Rate = r
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.sandboxes[b.ID]; known {
		s.sandboxes[b.ID] = b
	}
	return b, nil
}
