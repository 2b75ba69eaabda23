package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/inventory"
)

// pruneHandlers answer the prune of the build cache.
type pruneHandlers struct {
	builder Builder
	events  *event.Log
}

func (h *pruneHandlers) routes() []route {
	return []route{{method: "POST", pattern: "/build/prune", handle: h.prune}}
}

func (h *pruneHandlers) prune(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if err := checkFilters(filters, "until", "id", "parent", "type", "description", "inuse", "shared", "private", "label", "label!"); err != nil {
		return fault.New(fault.KindOf(err), "failed to prune build cache: %w", err)
	}
	if len(filters["until"]) > 1 {
		return fault.New(fault.Invalid, "failed to prune build cache: filters expect only one value")
	}
	for v := range filters["until"] {
		if _, err := inventory.ParseTime(v); err != nil {
			return fault.New(fault.Invalid, "failed to prune build cache: \"until\" filter expects a duration (e.g., '24h') or a timestamp: %w", err)
		}
	}
	for _, name := range []string{"keep-storage", "reserved-space", "max-used-space", "min-free-space"} {
		if text := r.Form.Get(name); text != "" {
			if _, err := strconv.Atoi(text); err != nil {
				return fault.New(fault.Invalid, "%s is in bytes and expects an integer, got %s: %w", name, text, err)
			}
		}
	}
	query := url.Values{}
	for name, values := range r.Form {
		if name != "filters" {
			query[name] = values
		}
	}
	text, err := json.Marshal(filters)
	if err != nil {
		return err
	}
	query.Set("filters", string(text))
	report, err := h.builder.Prune(r.Context(), query)
	if err != nil {
		return err
	}
	if len(report.CachesDeleted) == 0 {
		report.CachesDeleted = nil // null, as in Docker
	}
	h.events.Publish(events.BuilderEventType, events.ActionPrune, events.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}})
	return writeJSON(w, http.StatusOK, report)
}

// booleanFilters are those whose value is true or false.
var booleanFilters = []string{"all", "dangling", "enabled"}

// checkFilters refuses a filter that is not accepted, and a value that is none,
// in Docker's words.
func checkFilters(filters map[string]map[string]bool, accepted ...string) error {
	for key, values := range filters {
		if !slices.Contains(accepted, key) {
			return fault.New(fault.Invalid, "invalid filter '%s'", key)
		}
		if !slices.Contains(booleanFilters, key) {
			continue
		}
		for v := range values {
			if _, err := strconv.ParseBool(v); err != nil {
				return fault.New(fault.Invalid, "invalid filter '%s=[%s]'", key, strings.Join(sortedKeys(values), " "))
			}
		}
	}
	return nil
}

func sortedKeys(set map[string]bool) []string {
	var list []string
	for v := range set {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}
