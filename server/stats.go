package server

import (
	"context"
	"encoding/json"
	"net/http"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container"
)

// Stats tells what containers use; container.Stats is it.
type Stats interface {
	Read(ctx context.Context, nameOrID string, o container.StatsOptions, visit func(wire.StatsResponse) error) error
}

type statsHandlers struct{ stats Stats }

func (h *statsHandlers) routes() []route {
	return []route{{method: "GET", pattern: "/containers/{id}/stats", handle: h.read}}
}

// read sends each sample as it comes.
func (h *statsHandlers) read(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	o := container.StatsOptions{Stream: !r.Form.Has("stream") || r.flag("stream"), OneShot: r.version.oneShot(r)}
	w.Header().Set("Content-Type", "application/json")
	control, enc := http.NewResponseController(w), json.NewEncoder(w)
	return h.stats.Read(r.Context(), r.params["id"], o, func(s wire.StatsResponse) error {
		if err := enc.Encode(s); err != nil {
			return err
		}
		return control.Flush()
	})
}
