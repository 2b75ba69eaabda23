package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/jsonstream"
	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/volume"
)

// VolumeCopies is what the handlers need to copy, rename and archive volumes;
// volume.Service is it.
type VolumeCopies interface {
	Clone(ctx context.Context, name string, req volume.CloneRequest) (wire.Volume, error)
	Rename(ctx context.Context, name, to string) (wire.Volume, error)
	OpenExport(ctx context.Context, name string, freeze bool) (*volume.Export, error)
	Import(ctx context.Context, req volume.ImportRequest, tar io.Reader) (wire.Volume, error)
}

// VolumeTransfers moves volumes between here and registries; volume.Transfers is it.
type VolumeTransfers interface {
	Push(ctx context.Context, name, ref string, o volume.PushOptions, progress func(volume.Progress)) error
	Pull(ctx context.Context, ref string, req volume.ImportRequest, who image.Credentials, progress func(volume.Progress)) (wire.Volume, error)
}

// volumeCopyHandlers answer what Docker has no requests for. A volume's name is
// one segment, and Docker's requests about one have no further.
type volumeCopyHandlers struct {
	volumes   VolumeCopies
	transfers VolumeTransfers
}

func (h *volumeCopyHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/volumes/{name...}/clone", handle: h.clone, decodes: true},
		{method: "POST", pattern: "/volumes/{name...}/snapshot", handle: h.snapshot, decodes: true},
		{method: "POST", pattern: "/volumes/{name...}/rename", handle: h.rename},
		{method: "GET", pattern: "/volumes/{name...}/export", handle: h.export},
		{method: "POST", pattern: "/volumes/{name...}/import", handle: h.importTar},
		{method: "POST", pattern: "/volumes/{name...}/push", handle: h.push},
		{method: "POST", pattern: "/volumes/{name...}/pull", handle: h.pull},
	}
}

func (h *volumeCopyHandlers) clone(w http.ResponseWriter, r *request) error {
	var req volume.CloneRequest
	if err := r.json(&req); err != nil {
		return err
	}
	if req.Name == "" {
		return fault.New(fault.Invalid, "clone %s: the copy needs a name: give it as Name", r.params["name"])
	}
	return h.copy(w, r, req)
}

func (h *volumeCopyHandlers) snapshot(w http.ResponseWriter, r *request) error {
	var req volume.CloneRequest
	if err := r.json(&req); err != nil {
		return err
	}
	req.Snapshot = true
	return h.copy(w, r, req)
}

func (h *volumeCopyHandlers) copy(w http.ResponseWriter, r *request, req volume.CloneRequest) error {
	v, err := h.volumes.Clone(r.Context(), r.params["name"], req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (h *volumeCopyHandlers) rename(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	v, err := h.volumes.Rename(r.Context(), r.params["name"], r.Form.Get("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

// export sends a tar. An error of the beginning has its status, a later one cuts
// the answer.
func (h *volumeCopyHandlers) export(w http.ResponseWriter, r *request) error {
	r.query()
	e, err := h.volumes.OpenExport(r.Context(), r.params["name"], r.flag("freeze"))
	if err != nil {
		return err
	}
	defer e.Close()
	w.Header().Set("Content-Type", "application/x-tar")
	return e.Write(r.Context(), w)
}

// imported reads what is said of a volume that is to be made beside the body.
func (r *request) imported() (volume.ImportRequest, error) {
	r.query()
	req := volume.ImportRequest{Name: r.params["name"]}
	for key, to := range map[string]*map[string]string{"labels": &req.Labels, "options": &req.Options} {
		if text := r.Form.Get(key); text != "" {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				return req, fault.New(fault.Invalid, "invalid %s: want a JSON object of strings: %w", key, err)
			}
		}
	}
	return req, nil
}

func (h *volumeCopyHandlers) importTar(w http.ResponseWriter, r *request) error {
	req, err := r.imported()
	if err != nil {
		return err
	}
	v, err := h.volumes.Import(r.Context(), req, r.Body)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (h *volumeCopyHandlers) push(w http.ResponseWriter, r *request) error {
	r.query()
	out := newProgress(w)
	o := volume.PushOptions{Freeze: r.flag("freeze"), Credentials: r.registryAuth()}
	if err := h.transfers.Push(r.Context(), r.params["name"], r.Form.Get("ref"), o, out.volume); err != nil {
		return out.fail(err)
	}
	return out.begin()
}

func (h *volumeCopyHandlers) pull(w http.ResponseWriter, r *request) error {
	req, err := r.imported()
	if err != nil {
		return err
	}
	out := newProgress(w)
	if _, err := h.transfers.Pull(r.Context(), r.Form.Get("ref"), req, r.registryAuth(), out.volume); err != nil {
		return out.fail(err)
	}
	return out.begin()
}

// volume sends a step of a volume's transfer.
func (p *progress) volume(step volume.Progress) {
	m := progressMessage{Message: jsonstream.Message{ID: step.ID, Status: step.Status}}
	if step.Total > 0 {
		m.Progress = &jsonstream.Progress{Current: step.Current, Total: step.Total}
	} else if step.ID != "" {
		m.Progress = &jsonstream.Progress{}
	}
	_ = p.send(m)
}
