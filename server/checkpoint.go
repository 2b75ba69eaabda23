package server

import (
	"context"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/checkpoint"

	"github.com/tarehq/tare/container"
)

// Checkpoints are what was written of containers' processes;
// container.Checkpoints is it.
type Checkpoints interface {
	Create(ctx context.Context, nameOrID string, o container.CheckpointOptions) error
	List(nameOrID, dir string) ([]string, error)
	Inspect(nameOrID, dir, name string) (container.Checkpoint, error)
	Export(ctx context.Context, nameOrID, dir, name string, w io.Writer) error
	Import(ctx context.Context, nameOrID, name string, from io.Reader) error
	Remove(ctx context.Context, nameOrID, dir, name string) error
	Start(ctx context.Context, nameOrID, dir, name string, lazy bool) error
}

type checkpointHandlers struct{ checkpoints Checkpoints }

func (h *checkpointHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/containers/{id}/checkpoints", handle: h.create, decodes: true},
		{method: "GET", pattern: "/containers/{id}/checkpoints", handle: h.list},
		{method: "GET", pattern: "/containers/{id}/checkpoints/{checkpoint}/json", handle: h.inspect},          // not Docker's
		{method: "GET", pattern: "/containers/{id}/checkpoints/{checkpoint}/archive", handle: h.export},        // nor this
		{method: "PUT", pattern: "/containers/{id}/checkpoints/{checkpoint}/archive", handle: h.importArchive}, // nor this
		{method: "DELETE", pattern: "/containers/{id}/checkpoints/{checkpoint}", handle: h.remove},
	}
}

func (h *checkpointHandlers) create(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var req struct {
		checkpoint.CreateRequest
		PreDump bool // not Docker's
	}
	if err := r.json(&req); err != nil {
		return err
	}
	o := container.CheckpointOptions{Name: req.CheckpointID, Dir: req.CheckpointDir, Exit: req.Exit, PreDump: req.PreDump}
	if err := h.checkpoints.Create(r.Context(), r.params["id"], o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (h *checkpointHandlers) list(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	names, err := h.checkpoints.List(r.params["id"], r.Form.Get("dir"))
	if err != nil {
		return err
	}
	list := make([]checkpoint.Summary, len(names))
	for i, name := range names {
		list[i].Name = name
	}
	return writeJSON(w, http.StatusOK, list)
}

func (h *checkpointHandlers) inspect(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	c, err := h.checkpoints.Inspect(r.params["id"], r.Form.Get("dir"), r.params["checkpoint"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}

func (h *checkpointHandlers) export(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return h.checkpoints.Export(r.Context(), r.params["id"], r.Form.Get("dir"), r.params["checkpoint"], w)
}

func (h *checkpointHandlers) importArchive(w http.ResponseWriter, r *request) error {
	if err := h.checkpoints.Import(r.Context(), r.params["id"], r.params["checkpoint"], r.Body); err != nil {
		return err
	}
	return noContent(w)
}

func (h *checkpointHandlers) remove(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	if err := h.checkpoints.Remove(r.Context(), r.params["id"], r.Form.Get("dir"), r.params["checkpoint"]); err != nil {
		return err
	}
	return noContent(w)
}
