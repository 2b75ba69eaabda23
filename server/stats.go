package server

import (
	"context"
	"encoding/json"
	"net/http"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/stats"
)

// Stats tells what containers use; stats.Sampler is it.
type Stats interface {
	Read(ctx context.Context, nameOrID string, o stats.Options, visit func(wire.StatsResponse) error) error
}

// Processes are what runs in containers; container.Processes is it.
type Processes interface {
	Top(ctx context.Context, nameOrID, arguments string) (wire.TopResponse, error)
}

type statsHandlers struct {
	stats     Stats
	processes Processes
}

func (h *statsHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/containers/{id}/stats", handle: h.read},
		{method: "GET", pattern: "/containers/{id}/top", handle: h.top},
	}
}

func (h *statsHandlers) top(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	top, err := h.processes.Top(r.Context(), r.params["id"], r.Form.Get("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

// read sends each sample as it comes.
func (h *statsHandlers) read(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	o := stats.Options{Stream: !r.Form.Has("stream") || r.flag("stream"), OneShot: r.version.OneShot() && r.flag("one-shot")}
	w.Header().Set("Content-Type", "application/json")
	control, enc := http.NewResponseController(w), json.NewEncoder(w)
	return h.stats.Read(r.Context(), r.params["id"], o, func(s wire.StatsResponse) error {
		if err := enc.Encode(s); err != nil {
			return err
		}
		return control.Flush()
	})
}
