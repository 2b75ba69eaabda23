package server

import (
	"context"
	"net/http"

	wire "github.com/moby/moby/api/types/container"
)

// Pruning removes the containers that do not run; container.Pruning is it.
type Pruning interface {
	Prune(ctx context.Context, filters map[string]map[string]bool) (wire.PruneReport, error)
}

type containerPruneHandlers struct{ containers Pruning }

func (h *containerPruneHandlers) routes() []route {
	return []route{{method: "POST", pattern: "/containers/prune", handle: h.prune}}
}

func (h *containerPruneHandlers) prune(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	report, err := h.containers.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}
