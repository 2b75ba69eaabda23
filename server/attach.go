package server

import (
	"log/slog"
	"net/http"

	"github.com/tarehq/tare/container"
)

type attachHandlers struct {
	streams Streams
	log     *slog.Logger
}

func (h *attachHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/containers/{id}/attach", handle: h.attach},
		{method: "GET", pattern: "/containers/{id}/attach/ws", handle: h.attachSocket},
		{method: "POST", pattern: "/containers/{id}/resize", handle: h.resize},
	}
}

func (h *attachHandlers) attach(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	o := container.AttachOptions{
		Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr"),
		Stream: r.flag("stream"), Logs: r.flag("logs"), DetachKeys: r.Form.Get("detachKeys"),
	}
	if err := r.skipBody(); err != nil {
		return err
	}
	t := &takeover{w: w, r: r}
	return h.session(t, h.streams.Attach(r.Context(), r.params["id"], o, t.hijack))
}

// attachSocket is attach over a websocket, whose messages are pieces of the streams,
// standard output and error in one.
func (h *attachHandlers) attachSocket(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	o := container.AttachOptions{
		Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Raw: true,
		Stream: r.flag("stream"), Logs: r.flag("logs"), DetachKeys: r.Form.Get("detachKeys"),
	}
	if r.version.AllStreams() {
		o.Stdin, o.Stdout, o.Stderr = true, true, true
	}
	t := &takeover{w: w, r: r}
	return h.session(t, h.streams.Attach(r.Context(), r.params["id"], o, t.websocket))
}

// session is the answer of an attach that has ended.
func (h *attachHandlers) session(t *takeover, err error) error {
	if t.taken {
		// The stream was the answer; there is nothing left to put an error in.
		if err != nil {
			h.log.Debug("attach ended", "container", t.r.params["id"], "error", err)
		}
		return nil
	}
	return err
}

func (h *attachHandlers) resize(w http.ResponseWriter, r *request) error {
	height, width, err := terminalSize(r)
	if err != nil {
		return err
	}
	return h.streams.Resize(r.Context(), r.params["id"], height, width)
}

func terminalSize(r *request) (height, width uint16, err error) {
	if err = r.form(); err != nil {
		return 0, 0, err
	}
	if height, err = r.size("h", "height"); err != nil {
		return 0, 0, err
	}
	width, err = r.size("w", "width")
	return height, width, err
}
