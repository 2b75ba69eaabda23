package container

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/network"
)

// bareEndpoint is the place of a run on host or none, where nothing is made for
// it: nil for a container with networks of its own or with another's. Its ID
// follows from the run, so nobody has to keep it.
func (s *Service) bareEndpoint(r *Record) *network.Endpoint {
	mode := r.HostConfig.NetworkMode
	if r.Sandbox != nil || !mode.IsHost() && !mode.IsNone() {
		return nil
	}
	n, err := s.cfg.Networks.Lookup(string(mode))
	if err != nil || r.Networks != nil && r.Networks[n.Name] == nil { // it was taken off it
		return nil
	}
	id := sha256.Sum256([]byte(r.ID + n.ID + strconv.FormatInt(r.StartedAt.UnixNano(), 10)))
	return &network.Endpoint{ID: hex.EncodeToString(id[:]), NetworkID: n.ID, NetworkName: n.Name, Driver: n.Driver}
}

// endpointsOf are all places of a run.
func (s *Service) endpointsOf(r *Record) []network.Endpoint {
	if r.Sandbox != nil {
		return r.Sandbox.Endpoints
	}
	if e := s.bareEndpoint(r); e != nil {
		return []network.Endpoint{*e}
	}
	return nil
}

// Bare lists, by container, the places on the network of the ID which the
// networks themselves know nothing of: those on host and none.
func (p *Places) Bare(networkID string) map[string]wirenet.EndpointResource {
	all := map[string]wirenet.EndpointResource{}
	for _, r := range p.containers.store.All() {
		if !r.State.Up() {
			continue
		}
		if e := p.containers.bareEndpoint(&r); e != nil && e.NetworkID == networkID {
			all[r.ID] = wirenet.EndpointResource{Name: r.Name, EndpointID: e.ID}
		}
	}
	return all
}
