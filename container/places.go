package container

import (
	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/fault"
)

// Places are the containers' places on networks: Connect and Disconnect change
// them, running or not.
type Places struct{ containers *Service }

// errShared is Docker's refusal of a second network beside another's.
var errShared = fault.New(fault.Invalid, "container sharing network namespace with another container or host cannot be connected to any other network")

// Bare lists, by container, the places on the network of the ID which the
// networks themselves know nothing of: those on host and none.
func (p *Places) Bare(networkID string) map[string]wirenet.EndpointResource {
	all := map[string]wirenet.EndpointResource{}
	for _, r := range p.containers.store.All() {
		if !r.State.Up() {
			continue
		}
		if e := r.BareEndpoint(p.containers.cfg.Networks); e != nil && e.NetworkID == networkID {
			all[r.ID] = wirenet.EndpointResource{Name: r.Name, EndpointID: e.ID}
		}
	}
	return all
}

// tell tells of a container's coming to its networks or leaving them.
func (p *Places) tell(r *Record, action events.Action) {
	s := p.containers
	for _, e := range r.Endpoints(s.cfg.Networks) {
		publishPlace(s.cfg.Events, r.ID, e, action)
	}
}
