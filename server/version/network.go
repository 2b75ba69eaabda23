package version

import wire "github.com/moby/moby/api/types/network"

// NetworksInFull tells whether a list of networks has their containers.
func (v Version) NetworksInFull() bool { return v.Before(28) }

// Networks is a list of them: before 1.52 each had the containers of an answer in
// full, none.
func (v Version) Networks(list []wire.Summary) any {
	if !v.Before(52) {
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

// Network leaves out what the version did not have.
func (v Version) Network(n wire.Inspect) wire.Inspect {
	if v.Before(52) {
		n.Status = nil
	}
	return n
}

// CreateNetwork brings an older client's request to the newest meaning.
func (v Version) CreateNetwork(r *wire.CreateRequest) {
	if v.Before(48) {
		r.EnableIPv4 = nil
	}
}

// ConnectNetwork is createNetwork of a connection.
func (v Version) ConnectNetwork(r *wire.ConnectRequest) {
	e := r.EndpointConfig
	if e == nil {
		return
	}
	if v.Before(44) {
		e.MacAddress = nil
	}
	if v.Before(48) {
		e.GwPriority = 0
	}
}
