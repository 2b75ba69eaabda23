package server

import (
	"net/http"
	"strconv"

	"github.com/tarehq/tare/fault"
)

var (
	errNoManager = fault.New(fault.Unavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	errNoSwarm   = fault.New(fault.Unavailable, "This node is not part of a swarm")
)

// swarmRoutes answers as a daemon that is in no swarm and cannot be in one.
func swarmRoutes() []route {
	noManager := func(http.ResponseWriter, *request) error { return errNoManager }
	update := func(_ http.ResponseWriter, r *request) error {
		if err := r.form(); err != nil {
			return err
		}
		version := r.Form.Get("version")
		if _, err := strconv.ParseUint(version, 10, 64); err != nil {
			return fault.New(fault.Invalid, "invalid swarm version '%s': %w", version, err)
		}
		return errNoManager
	}
	rows := []route{
		{method: "POST", pattern: "/swarm/update", handle: update},
		{method: "POST", pattern: "/swarm/init", handle: notYet("swarm mode")},
		{method: "POST", pattern: "/swarm/join", handle: notYet("swarm mode")},
		{method: "POST", pattern: "/swarm/leave", handle: func(http.ResponseWriter, *request) error { return errNoSwarm }},
	}
	for _, path := range []string{
		"GET /swarm", "GET /swarm/unlockkey", "POST /swarm/unlock",
		"GET /nodes", "GET /nodes/{id}", "DELETE /nodes/{id}", "POST /nodes/{id}/update",
		"GET /services", "POST /services/create", "GET /services/{id}", "DELETE /services/{id}",
		"POST /services/{id}/update", "GET /services/{id}/logs",
		"GET /tasks", "GET /tasks/{id}", "GET /tasks/{id}/logs",
		"GET /secrets", "POST /secrets/create", "GET /secrets/{id}", "DELETE /secrets/{id}", "POST /secrets/{id}/update",
		"GET /configs", "POST /configs/create", "GET /configs/{id}", "DELETE /configs/{id}", "POST /configs/{id}/update",
	} {
		rows = append(rows, row(path, noManager))
	}
	return rows
}
