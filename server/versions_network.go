package server

import wire "github.com/moby/moby/api/types/network"

// networksInFull tells whether a list of networks has their containers.
func (v Version) networksInFull() bool { return v.before(28) }

// networks is a list of them: before 1.52 each had the containers of an answer in
// full, none.
func (v Version) networks(list []wire.Summary) any {
	if !v.before(52) {
		return list
	}
	type legacy struct {
		wire.Summary
		Containers struct{}
	}
	old := make([]legacy, len(list))
	for i, n := range list {
		old[i].Summary = n
	}
	return old
}

// network leaves out what the version did not have.
func (v Version) network(n wire.Inspect) wire.Inspect {
	if v.before(52) {
		n.Status = nil
	}
	return n
}

// createNetwork brings an older client's request to the newest meaning.
func (v Version) createNetwork(r *wire.CreateRequest) {
	if v.before(48) {
		r.EnableIPv4 = nil
	}
}

// connectNetwork is createNetwork of a connection.
func (v Version) connectNetwork(r *wire.ConnectRequest) {
	e := r.EndpointConfig
	if e == nil {
		return
	}
	if v.before(44) {
		e.MacAddress = nil
	}
	if v.before(48) {
		e.GwPriority = 0
	}
}
