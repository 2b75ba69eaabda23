package front

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	wire "github.com/moby/moby/api/types/build"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/reply"
	"github.com/tarehq/tare/fault"
)

// usage is GET /build/usage, which the daemon asks for its own answers.
func (h *handler) usage(w http.ResponseWriter, r *http.Request) {
	list, err := h.solver.Usage(r.Context())
	if err != nil {
		reply.Error(w, err)
		return
	}
	u := wire.DiskUsage{TotalCount: int64(len(list))}
	for _, c := range list {
		used := c.LastUsed
		u.Items = append(u.Items, wire.CacheRecord{ID: c.ID, Parents: c.Parents, Type: c.Type, Description: c.Description, InUse: c.InUse, Shared: c.Shared,
			Size: c.Size, CreatedAt: c.Created, LastUsedAt: &used, UsageCount: c.Uses})
		if c.InUse {
			u.ActiveCount++
		}
		if !c.Shared {
			u.TotalSize += c.Size
			if !c.InUse {
				u.Reclaimable += c.Size
			}
		}
	}
	reply.JSON(w, u)
}

// prune is POST /build/prune.
func (h *handler) prune(w http.ResponseWriter, r *http.Request) {
	o, err := pruneOptions(r.URL.Query())
	if err != nil {
		reply.Error(w, err)
		return
	}
	gone, err := h.solver.Prune(r.Context(), o, nil)
	if err != nil {
		reply.Error(w, err)
		return
	}
	report := wire.CachePruneReport{CachesDeleted: []string{}}
	for _, u := range gone {
		report.CachesDeleted = append(report.CachesDeleted, u.ID)
		report.SpaceReclaimed += uint64(u.Size)
	}
	reply.JSON(w, report)
}

// pruneOptions reads a request's query; its filters are known to be those that
// there are.
func pruneOptions(q url.Values) (o build.PruneOptions, err error) {
	o.All = reply.Truth(q, "all")
	for to, names := range map[*int64][]string{&o.Reserved: {"reserved-space", "keep-storage"}, &o.Max: {"max-used-space"}, &o.MinFree: {"min-free-space"}} {
		for _, name := range names {
			text := q.Get(name)
			if text == "" {
				continue
			}
			if *to, err = strconv.ParseInt(text, 10, 64); err != nil {
				return o, fault.New(fault.Invalid, "%s is in bytes and expects an integer, got %s", name, text)
			}
		}
	}
	filters := map[string]map[string]bool{}
	if text := q.Get("filters"); text != "" {
		if err := json.Unmarshal([]byte(text), &filters); err != nil {
			return o, fault.New(fault.Invalid, "the filters cannot be read: %w", err)
		}
	}
	for text := range filters["until"] {
		if o.Unused, err = time.ParseDuration(text); err != nil {
			return o, fault.New(fault.Invalid, "invalid filter 'until=%s': a duration such as 24h is expected", text)
		}
	}
	o.Match = func(u build.Usage) bool {
		for name, values := range filters {
			if name != "until" && !slices.ContainsFunc(keysOf(values), func(v string) bool { return build.Fits(u, name, v) }) {
				return false
			}
		}
		return true
	}
	return o, nil
}

func keysOf(set map[string]bool) (list []string) {
	for v := range set {
		list = append(list, v)
	}
	return list
}
