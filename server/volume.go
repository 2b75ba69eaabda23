package server

import (
	"net/http"

	wire "github.com/moby/moby/api/types/volume"
	"github.com/tarehq/tare/fault"
)

// volumeRoutes answers for a daemon that has no volumes and cannot make any.
func volumeRoutes() []route {
	missing := func(w http.ResponseWriter, r *request) error {
		return fault.New(fault.NotFound, "get %s: no such volume", r.params["name"])
	}
	return []route{
		{method: "GET", pattern: "/volumes", handle: func(w http.ResponseWriter, r *request) error {
			return writeJSON(w, http.StatusOK, wire.ListResponse{Volumes: []wire.Volume{}})
		}},
		{method: "POST", pattern: "/volumes/create", handle: notYet("creating volumes")},
		{method: "POST", pattern: "/volumes/prune", handle: notYet("pruning volumes")},
		{method: "GET", pattern: "/volumes/{name}", handle: missing},
		{method: "PUT", pattern: "/volumes/{name}", handle: missing},
		{method: "DELETE", pattern: "/volumes/{name}", handle: missing},
	}
}
