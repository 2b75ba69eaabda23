package server

import (
	"net/http"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/network"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/label"
)

// Networks is what the handlers need of networks; network.Service is it.
type Networks interface {
	List() []wire.Summary
	Inspect(nameOrID string) (wire.Inspect, error)
}

type networkHandlers struct{ networks Networks }

func (h *networkHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/networks", handle: h.list},
		{method: "GET", pattern: "/networks/{id}", handle: h.inspect},
		{method: "POST", pattern: "/networks/create", handle: notYet("creating networks")},
		{method: "POST", pattern: "/networks/{id}/connect", handle: notYet("connecting a container to a network")},
		{method: "POST", pattern: "/networks/{id}/disconnect", handle: notYet("disconnecting a container from a network")},
		{method: "DELETE", pattern: "/networks/{id}", handle: h.remove},
	}
}

func (h *networkHandlers) list(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if err := checkNetworkFilters(filters); err != nil {
		return err
	}
	list := []wire.Summary{}
	for _, n := range h.networks.List() {
		if matchesNetwork(filters, n) {
			list = append(list, n)
		}
	}
	if !r.version.before(28) {
		return writeJSON(w, http.StatusOK, list)
	}
	detailed := []wire.Inspect{} // the containers were in the list too
	for _, n := range list {
		full, err := h.networks.Inspect(n.ID)
		if err != nil {
			return err
		}
		detailed = append(detailed, full)
	}
	return writeJSON(w, http.StatusOK, detailed)
}

func (h *networkHandlers) inspect(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	id := r.params["id"]
	if v := r.Form.Get("verbose"); v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return fault.New(fault.Invalid, "invalid value for verbose: %s: %w", v, err)
		}
	}
	n, err := h.networks.Inspect(id)
	if err != nil {
		return err
	}
	if scope := r.Form.Get("scope"); scope != "" && scope != n.Scope {
		return fault.New(fault.NotFound, "network %s not found", id)
	}
	if r.version.before(52) {
		n.Status = nil
	}
	return writeJSON(w, http.StatusOK, n)
}

// remove refuses: the three networks that there are cannot go.
func (h *networkHandlers) remove(w http.ResponseWriter, r *request) error {
	n, err := h.networks.Inspect(r.params["id"])
	if err != nil {
		return err
	}
	return fault.New(fault.Forbidden, "%s is a pre-defined network and cannot be removed", n.Name)
}

func checkNetworkFilters(filters map[string]map[string]bool) error {
	for key, values := range filters {
		switch key {
		case "driver", "id", "label", "name", "scope", "idOrName":
		case "type":
			for v := range values {
				if v != "builtin" && v != "custom" {
					return fault.New(fault.Invalid, "invalid filter: 'type'='%s'", v)
				}
			}
		case "dangling":
			for v := range values {
				if _, err := strconv.ParseBool(v); err != nil {
					return fault.New(fault.Invalid, "invalid filter 'dangling=[%s]'", v)
				}
			}
		default:
			return fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	return nil
}

// matchesNetwork tells whether each filter has a value that fits.
func matchesNetwork(filters map[string]map[string]bool, n wire.Summary) bool {
	fits := func(key, value string) bool {
		switch key {
		case "driver":
			return n.Driver == value
		case "id":
			return strings.HasPrefix(n.ID, value)
		case "name":
			return strings.Contains(n.Name, value)
		case "idOrName":
			return n.Name == value || strings.HasPrefix(n.ID, value)
		case "scope":
			return n.Scope == value
		case "type": // all networks that there are come with the daemon
			return value == "builtin"
		case "dangling": // and those are never dangling
			dangling, _ := strconv.ParseBool(value)
			return !dangling
		case "label":
			return label.Has(n.Labels, value)
		}
		return false
	}
	for key, values := range filters {
		fit := false
		for value := range values {
			fit = fit || fits(key, value)
		}
		if len(values) > 0 && !fit {
			return false
		}
	}
	return true
}
