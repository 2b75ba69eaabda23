package record

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/tarehq/tare/network"
)

// BareEndpoint is the place of a run on host or none, where nothing is made for
// it: nil for a container with networks of its own or with another's. Its ID
// follows from the run, so nobody has to keep it.
func (r *Record) BareEndpoint(networks *network.Service) *network.Endpoint {
	mode := r.HostConfig.NetworkMode
	if r.Sandbox != nil || !mode.IsHost() && !mode.IsNone() {
		return nil
	}
	n, err := networks.Lookup(string(mode))
	if err != nil || r.Networks != nil && r.Networks[n.Name] == nil { // it was taken off it
		return nil
	}
	id := sha256.Sum256([]byte(r.ID + n.ID + strconv.FormatInt(r.StartedAt.UnixNano(), 10)))
	return &network.Endpoint{ID: hex.EncodeToString(id[:]), NetworkID: n.ID, NetworkName: n.Name, Driver: n.Driver}
}

// Endpoints are all places of a run.
func (r *Record) Endpoints(networks *network.Service) []network.Endpoint {
	if r.Sandbox != nil {
		return r.Sandbox.Endpoints
	}
	if e := r.BareEndpoint(networks); e != nil {
		return []network.Endpoint{*e}
	}
	return nil
}
