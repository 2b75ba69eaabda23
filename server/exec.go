package server

import (
	"context"
	"log/slog"
	"net/http"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/fault"
)

// Execs are further processes in running containers.
type Execs interface {
	Create(ctx context.Context, nameOrID string, req wire.ExecCreateRequest) (id string, err error)
	Start(ctx context.Context, execID string, o container.ExecStartOptions, hijack container.Hijack) error
	Inspect(ctx context.Context, execID string) (wire.ExecInspectResponse, error)
	Resize(ctx context.Context, execID string, height, width uint16) error
}

type execHandlers struct {
	execs Execs
	log   *slog.Logger
}

func (h *execHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/containers/{id}/exec", handle: h.create, decodes: true},
		{method: "POST", pattern: "/exec/{id}/start", handle: h.start, decodes: true},
		{method: "POST", pattern: "/exec/{id}/resize", handle: h.resize},
		{method: "GET", pattern: "/exec/{id}/json", handle: h.inspect},
	}
}

func (h *execHandlers) create(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var req wire.ExecCreateRequest
	if err := r.json(&req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return fault.New(fault.Invalid, "No exec command specified")
	}
	if r.version.Before(42) {
		req.ConsoleSize = nil
	}
	id, err := h.execs.Create(r.Context(), r.params["id"], req)
	if err != nil {
		return err
	}
	if r.startsToo() {
		return h.run(w, r, id, container.ExecStartOptions{TTY: req.Tty, ConsoleSize: req.ConsoleSize, Exit: true})
	}
	return writeJSON(w, http.StatusCreated, wire.ExecCreateResponse{ID: id})
}

// startsToo tells whether the creation of an exec is to be its start as well: a
// client of ours asks so, and others' daemons do not hear it. Authorization
// plugins are asked about both.
func (r *request) startsToo() bool {
	_, upgrade := r.Header["Upgrade"]
	return upgrade && r.hearing == nil && r.Form.Get("start") == "1"
}

// start runs the process. What is known to be wrong before there is a stream is
// an HTTP answer; what comes to light later, the container tells on the stream.
func (h *execHandlers) start(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var req wire.ExecStartRequest
	if err := r.json(&req); err != nil {
		return err
	}
	o := container.ExecStartOptions{Detach: req.Detach, TTY: req.Tty}
	if req.Tty && !r.version.Before(42) {
		o.ConsoleSize = req.ConsoleSize
	}
	return h.run(w, r, r.params["id"], o)
}

func (h *execHandlers) run(w http.ResponseWriter, r *request, id string, o container.ExecStartOptions) error {
	t := &takeover{w: w, r: r, exec: id}
	err := h.execs.Start(r.Context(), id, o, t.hijack)
	switch {
	case err == nil && o.Detach && !t.taken:
		w.WriteHeader(http.StatusOK)
		return nil
	case err == nil:
		return nil
	case t.taken:
		h.log.Debug("exec ended", "exec", id, "error", err)
		return nil
	}
	return err
}

func (h *execHandlers) inspect(w http.ResponseWriter, r *request) error {
	e, err := h.execs.Inspect(r.Context(), r.params["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, e)
}

func (h *execHandlers) resize(w http.ResponseWriter, r *request) error {
	height, width, err := terminalSize(r)
	if err != nil {
		return err
	}
	return h.execs.Resize(r.Context(), r.params["id"], height, width)
}
