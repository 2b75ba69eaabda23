package network

import (
	"context"
	"os"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
)

// Create makes a network.
func (s *Service) Create(ctx context.Context, req wire.CreateRequest) (wire.CreateResponse, error) {
	return wire.CreateResponse{}, fault.New(fault.NotImplemented, "creating networks is not supported yet")
}

// Remove takes a network back that no container is on.
func (s *Service) Remove(ctx context.Context, nameOrID string) error {
	n, err := s.Lookup(nameOrID)
	if err != nil {
		return err
	}
	return fault.New(fault.Forbidden, "%s is a pre-defined network and cannot be removed", n.Name)
}

// Prune removes the networks that no container is on and that match wants, and
// gives their names.
func (s *Service) Prune(ctx context.Context, wants func(wire.Network) bool) ([]string, error) {
	return nil, nil
}

// Network is one as it stands, a copy.
type Network struct {
	wire.Network
	// Predefined networks come with the daemon: bridge, host and none.
	Predefined bool
}

// HasNames tells whether containers on the network find each other by name.
func (n Network) HasNames() bool { return !n.Predefined }

// Lookup finds a network by its name, ID or unambiguous beginning of the ID.
// An unknown one is fault.NotFound. "default" is the default bridge.
func (s *Service) Lookup(nameOrID string) (Network, error) {
	if nameOrID == "default" {
		nameOrID = networkBridge
	}
	name, err := s.resolve(nameOrID)
	if err != nil {
		return Network{}, err
	}
	return Network{s.describe(name), true}, nil
}

// Connect gives a running container a place on one more network.
func (s *Service) Connect(ctx context.Context, b Sandbox, netns *os.File, w Want) (Sandbox, []*os.File, error) {
	return b, nil, fault.New(fault.NotImplemented, "connecting a container to a network is not supported yet")
}

// Disconnect takes an endpoint of a running container away.
func (s *Service) Disconnect(ctx context.Context, b Sandbox, netns *os.File, endpointID string) (Sandbox, error) {
	return b, fault.New(fault.NotImplemented, "disconnecting a container from a network is not supported yet")
}

// Rename tells of a container's new name.
func (s *Service) Rename(ctx context.Context, b Sandbox, name string) (Sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.Name = name
	if _, known := s.sandboxes[b.ID]; known {
		s.sandboxes[b.ID] = b
	}
	return b, nil
}
