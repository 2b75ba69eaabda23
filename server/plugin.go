package server

import (
	"net/http"
	"path"
	"strings"

	"github.com/tarehq/tare/fault"
)

// pluginRoutes answers for a daemon without managed plugins.
func pluginRoutes() []route {
	missing := func(w http.ResponseWriter, r *request) error {
		return fault.New(fault.NotFound, "plugin %q not found", r.params["name"])
	}
	missingTag := func(w http.ResponseWriter, r *request) error {
		name := r.params["name"]
		if !strings.ContainsRune(path.Base(name), ':') {
			name += ":latest"
		}
		return fault.New(fault.NotFound, "plugin %q not found", name)
	}
	return []route{
		{method: "GET", pattern: "/plugins", handle: func(w http.ResponseWriter, r *request) error {
			if err := r.form(); err != nil {
				return err
			}
			filters, err := r.filters()
			if err != nil {
				return err
			}
			if err := checkFilters(filters, "enabled", "capability"); err != nil {
				return err
			}
			return writeJSON(w, http.StatusOK, []struct{}{})
		}},
		{method: "GET", pattern: "/plugins/privileges", handle: notYet("installing plugins")},
		{method: "POST", pattern: "/plugins/pull", handle: notYet("installing plugins")},
		{method: "POST", pattern: "/plugins/create", handle: notYet("creating plugins")},
		{method: "GET", pattern: "/plugins/{name...}/json", handle: missing},
		{method: "POST", pattern: "/plugins/{name...}/enable", handle: missing},
		{method: "POST", pattern: "/plugins/{name...}/disable", handle: missing},
		{method: "POST", pattern: "/plugins/{name...}/upgrade", handle: missingTag},
		{method: "POST", pattern: "/plugins/{name...}/push", handle: missing},
		{method: "POST", pattern: "/plugins/{name...}/set", handle: missing},
		{method: "DELETE", pattern: "/plugins/{name...}", handle: missing},
	}
}
