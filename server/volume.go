package server

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/volume"
)

// Volumes is what the handlers need of volumes; volume.Service is it.
type Volumes interface {
	Create(ctx context.Context, req volume.CreateRequest) (wire.Volume, error)
	Inspect(ctx context.Context, name string) (wire.Volume, error)
	List(ctx context.Context, filters map[string]map[string]bool) (list []wire.Volume, warnings []string, err error)
	Brief(ctx context.Context, filters map[string]map[string]bool) (list []volume.Brief, warnings []string, err error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, filters map[string]map[string]bool) (wire.PruneReport, error)
	Usage(ctx context.Context) (*wire.DiskUsage, error)
	Drivers() []string
}

type volumeHandlers struct{ volumes Volumes }

func (h *volumeHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/volumes", handle: h.list},
		{method: "POST", pattern: "/volumes/create", handle: h.create, decodes: true},
		{method: "POST", pattern: "/volumes/prune", handle: h.prune},
		{method: "GET", pattern: "/volumes/{name...}", handle: h.inspect},
		{method: "PUT", pattern: "/volumes/{name...}", handle: h.update},
		{method: "DELETE", pattern: "/volumes/{name...}", handle: h.remove},
	}
}

func (h *volumeHandlers) list(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return fault.New(fault.Invalid, "error reading volume filters: %w", err)
	}
	if r.flag("brief") { // a parameter of our own, and so of any version
		list, warnings, err := h.volumes.Brief(r.Context(), filters)
		if err != nil {
			return err
		}
		return writeVolumes(w, list, warnings)
	}
	list, warnings, err := h.volumes.List(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeVolumes(w, list, warnings)
}

func writeVolumes[T any](w http.ResponseWriter, list []T, warnings []string) error {
	said, err := json.Marshal(warnings)
	if err != nil {
		return err
	}
	return writeText(w, slices.Concat([]byte(`{"Volumes":[`), encodeList(list), []byte(`],"Warnings":`), said, []byte("}\n")))
}

func (h *volumeHandlers) create(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var body wire.CreateRequest
	if err := r.json(&body); err != nil {
		return err
	}
	if body.ClusterVolumeSpec != nil && !r.version.Before(42) {
		return errNoManager
	}
	v, err := h.volumes.Create(r.Context(), volume.CreateRequest{Name: body.Name, Driver: body.Driver, Options: body.DriverOpts, Labels: body.Labels})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (h *volumeHandlers) inspect(w http.ResponseWriter, r *request) error {
	v, err := h.volumes.Inspect(r.Context(), r.params["name"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

// update is of cluster volumes, of which there are none.
func (h *volumeHandlers) update(http.ResponseWriter, *request) error {
	return fault.New(fault.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
}

func (h *volumeHandlers) remove(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	// Before 1.25 there was no force.
	if err := h.volumes.Remove(r.Context(), r.params["name"], r.flag("force") && !r.version.Before(25)); err != nil {
		return err
	}
	return noContent(w)
}

// prune removes, before 1.42, the volumes with names too.
func (h *volumeHandlers) prune(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if r.version.Before(42) {
		addFilter(filters, "all", "true")
	}
	report, err := h.volumes.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}
