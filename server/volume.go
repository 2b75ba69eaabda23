package server

import (
	"net/http"

	wire "github.com/moby/moby/api/types/volume"
	"github.com/tarehq/tare/fault"
)

// volumeRoutes answers for a daemon that has no volumes and cannot make any.
func volumeRoutes() []route {
	missing := func(name string) error { return fault.New(fault.NotFound, "get %s: no such volume", name) }
	return []route{
		{method: "GET", pattern: "/volumes", handle: func(w http.ResponseWriter, r *request) error {
			if err := r.form(); err != nil {
				return err
			}
			filters, err := r.filters()
			if err != nil {
				return err
			}
			if err := checkFilters(filters, "dangling", "driver", "label", "name"); err != nil {
				return err
			}
			return writeJSON(w, http.StatusOK, wire.ListResponse{Volumes: []wire.Volume{}})
		}},
		{method: "POST", pattern: "/volumes/create", handle: notYet("creating volumes")},
		{method: "GET", pattern: "/volumes/{name}", handle: func(w http.ResponseWriter, r *request) error { return missing(r.params["name"]) }},
		{method: "PUT", pattern: "/volumes/{name}", handle: func(http.ResponseWriter, *request) error {
			return fault.New(fault.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
		}},
		{method: "DELETE", pattern: "/volumes/{name}", handle: func(w http.ResponseWriter, r *request) error {
			if err := r.form(); err != nil {
				return err
			}
			if r.flag("force") && !r.version.before(25) { // what is gone already is what was wanted
				return noContent(w)
			}
			return missing(r.params["name"])
		}},
	}
}
