package server

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
)

// pruneHandlers answer the prunes of what there is never any of that nobody
// needs: there is no build cache.
type pruneHandlers struct{ events *event.Log }

func (h *pruneHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/build/prune", handle: h.prune(events.BuilderEventType, build.CachePruneReport{CachesDeleted: []string{}},
			"until", "id", "parent", "type", "description", "inuse", "shared", "private", "label", "label!")},
	}
}

// prune answers with the report of nothing, if the filters are among the
// accepted ones.
func (h *pruneHandlers) prune(kind events.Type, nothing any, accepted ...string) handler {
	return func(w http.ResponseWriter, r *request) error {
		if err := r.form(); err != nil {
			return err
		}
		filters, err := r.filters()
		if err != nil {
			return err
		}
		if err := checkFilters(filters, accepted...); err != nil {
			return err
		}
		if len(filters["until"]) > 1 {
			return fault.New(fault.Invalid, "more than one until filter specified")
		}
		h.events.Publish(kind, events.ActionPrune, events.Actor{Attributes: map[string]string{"reclaimed": "0"}})
		return writeJSON(w, http.StatusOK, nothing)
	}
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
