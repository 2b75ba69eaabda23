package server

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/internal/label"
)

// Networks is what the handlers need of networks; network.Service is it.
type Networks interface {
	List() []wire.Summary
	Inspect(nameOrID string) (wire.Inspect, error)
	Create(ctx context.Context, r wire.CreateRequest) (wire.CreateResponse, error)
	Remove(ctx context.Context, nameOrID string) error
	Prune(ctx context.Context, wants func(wire.Network) bool) (names []string, err error)
}

// Places are the containers' on networks; container.Places is it.
type Places interface {
	Connect(ctx context.Context, container, network string, e *wire.EndpointSettings) error
	Disconnect(ctx context.Context, container, network string, force bool) error
	Bare(networkID string) map[string]wire.EndpointResource
	Limit(ctx context.Context, container string, endpoints map[string]*wire.EndpointSettings) error
}

type networkHandlers struct {
	networks Networks
	places   Places
	events   *event.Log
	pruning  chan struct{} // full while networks are pruned
}

func newNetworkHandlers(c Config) *networkHandlers {
	return &networkHandlers{c.Networks, c.Places, c.Events, make(chan struct{}, 1)}
}

func (h *networkHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/networks", handle: h.list},
		{method: "GET", pattern: "/networks/{id}", handle: h.inspect},
		{method: "POST", pattern: "/networks/create", handle: h.create, decodes: true},
		{method: "POST", pattern: "/networks/prune", handle: h.prune},
		{method: "POST", pattern: "/networks/{id}/connect", handle: h.connect, decodes: true},
		{method: "POST", pattern: "/networks/{id}/disconnect", handle: h.disconnect, decodes: true},
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
	keep, err := h.filter(filters)
	if err != nil {
		return err
	}
	list := []wire.Summary{}
	for _, n := range h.networks.List() {
		if keep(n.Network) {
			list = append(list, n)
		}
	}
	if !r.version.NetworksInFull() {
		return writeJSON(w, http.StatusOK, r.version.Networks(list))
	}
	detailed := []wire.Inspect{}
	for _, n := range list {
		full, err := h.whole(n.ID)
		if errors.Is(err, fault.NotFound) { // removed meanwhile
			continue
		}
		if err != nil {
			return err
		}
		detailed = append(detailed, r.version.Network(full))
	}
	return writeJSON(w, http.StatusOK, detailed)
}

func (h *networkHandlers) inspect(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	id := r.params["id"]
	if v := r.Form.Get("verbose"); v != "" { // it is about services, which there are none of
		if _, err := strconv.ParseBool(v); err != nil {
			return fault.New(fault.Invalid, "invalid value for verbose: %s: %w", v, err)
		}
	}
	n, err := h.whole(id)
	if err != nil {
		return err
	}
	if scope := r.Form.Get("scope"); scope != "" && scope != n.Scope {
		return fault.New(fault.NotFound, "network %s not found", id)
	}
	return writeJSON(w, http.StatusOK, r.version.Network(n))
}

// whole describes the network with all its containers.
func (h *networkHandlers) whole(nameOrID string) (wire.Inspect, error) {
	n, err := h.networks.Inspect(nameOrID)
	if err == nil && (n.Driver == wire.NetworkHost || n.Driver == "null") {
		n.Containers = h.places.Bare(n.ID)
	}
	return n, err
}

func (h *networkHandlers) create(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var body wire.CreateRequest
	if err := r.json(&body); err != nil {
		return err
	}
	r.version.CreateNetwork(&body)
	out, err := h.networks.Create(r.Context(), body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, out)
}

func (h *networkHandlers) connect(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var body wire.ConnectRequest
	if err := r.json(&body); err != nil {
		return err
	}
	r.version.ConnectNetwork(&body)
	if err := h.places.Connect(r.Context(), body.Container, r.params["id"], body.EndpointConfig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *networkHandlers) disconnect(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var body wire.DisconnectRequest
	if err := r.json(&body); err != nil {
		return err
	}
	if err := h.places.Disconnect(r.Context(), body.Container, r.params["id"], body.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *networkHandlers) remove(w http.ResponseWriter, r *request) error {
	if err := h.networks.Remove(r.Context(), r.params["id"]); err != nil {
		return err
	}
	return noContent(w)
}

// prune removes the networks that nobody is on, one call at a time.
func (h *networkHandlers) prune(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	wants, err := prunableNetwork(filters)
	if err != nil {
		return err
	}
	select {
	case h.pruning <- struct{}{}:
		defer func() { <-h.pruning }()
	default:
		return fault.New(fault.Conflict, "a prune operation is already running")
	}
	names, err := h.networks.Prune(r.Context(), wants)
	if err != nil {
		return err
	}
	h.events.Publish(events.NetworkEventType, events.ActionPrune, events.Actor{Attributes: map[string]string{"reclaimed": "0"}})
	return writeJSON(w, http.StatusOK, wire.PruneReport{NetworksDeleted: names})
}

// prunableNetwork makes the filters of a prune one test.
func prunableNetwork(filters map[string]map[string]bool) (func(wire.Network) bool, error) {
	if err := checkFilters(filters, "label", "label!", "until"); err != nil {
		return nil, err
	}
	if len(filters["until"]) > 1 {
		return nil, fault.New(fault.Invalid, "more than one until filter specified")
	}
	var until time.Time
	for v := range filters["until"] {
		var err error
		if until, err = inventory.ParseTime(v); err != nil {
			return nil, err
		}
	}
	return func(n wire.Network) bool {
		return (until.IsZero() || !n.Created.After(until)) && hasLabels(n.Labels, filters["label"]) &&
			(len(filters["label!"]) == 0 || !hasLabels(n.Labels, filters["label!"]))
	}, nil
}

func hasLabels(labels map[string]string, conditions map[string]bool) bool {
	for c := range conditions {
		if !label.Has(labels, c) {
			return false
		}
	}
	return true
}

// filter makes the filters of a list one test: of each filter one value fits,
// of labels all.
func (h *networkHandlers) filter(filters map[string]map[string]bool) (func(wire.Network) bool, error) {
	dangling, err := checkNetworkFilters(filters)
	if err != nil {
		return nil, err
	}
	tests := map[string]func(n wire.Network, value string) bool{
		"driver": func(n wire.Network, v string) bool { return n.Driver == v },
		"scope":  func(n wire.Network, v string) bool { return n.Scope == v },
		"id":     func(n wire.Network, v string) bool { return fits(n.ID, v) },
		"name":   func(n wire.Network, v string) bool { return fits(n.Name, v) },
		"type":   func(n wire.Network, v string) bool { return predefined(n) == (v == "builtin") },
		"idOrName": func(n wire.Network, v string) bool {
			return n.Name == v || strings.HasPrefix(n.ID, v)
		},
	}
	return func(n wire.Network) bool {
		for key, test := range tests {
			if values := sortedKeys(filters[key]); len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return test(n, v) }) {
				return false
			}
		}
		return hasLabels(n.Labels, filters["label"]) && (dangling == nil || h.dangling(n) == *dangling)
	}, nil
}

// fits is Docker's comparison of names and IDs: a value is a regular expression
// if it can be one.
func fits(text, value string) bool {
	if text == value {
		return true
	}
	pattern, err := regexp.Compile(value)
	return err == nil && pattern.MatchString(text)
}

// predefined tells whether the network comes with the daemon.
func predefined(n wire.Network) bool {
	switch n.Name {
	case wire.NetworkBridge, wire.NetworkHost, wire.NetworkNone:
		return true
	}
	return false
}

// dangling tells whether no container is on a network that somebody made.
func (h *networkHandlers) dangling(n wire.Network) bool {
	if predefined(n) {
		return false
	}
	full, err := h.networks.Inspect(n.ID)
	return err == nil && len(full.Containers) == 0
}

func checkNetworkFilters(filters map[string]map[string]bool) (dangling *bool, err error) {
	for key, values := range filters {
		switch key {
		case "driver", "id", "label", "name", "scope", "idOrName":
		case "type":
			for v := range values {
				if v != "builtin" && v != "custom" {
					return nil, fault.New(fault.Invalid, "invalid filter: 'type'='%s'", v)
				}
			}
		case "dangling":
			list := sortedKeys(values)
			for _, v := range list {
				if len(list) > 1 {
					return nil, fault.New(fault.Invalid, `got more than one value for filter key "dangling"`)
				}
				is, err := strconv.ParseBool(v)
				if err != nil {
					return nil, fault.New(fault.Invalid, `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`)
				}
				dangling = &is
			}
		default:
			return nil, fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
	}
	return dangling, nil
}
