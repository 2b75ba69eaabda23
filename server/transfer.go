package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/reference"
)

// Transfers is what the handlers need to move images between here and
// registries; image.Transfers is it.
type Transfers interface {
	Pull(ctx context.Context, ref string, o image.PullOptions, progress func(image.Progress)) error
	Push(ctx context.Context, ref string, o image.PushOptions, progress func(image.Progress)) error
}

// pull is POST /images/create with fromImage. Without a tag or digest all tags
// of the repository are pulled.
func (h *imageHandlers) pull(w http.ResponseWriter, r *request) error {
	// Some clients leave the colon of the tag that they do not send.
	ref, err := named(strings.TrimSuffix(r.Form.Get("fromImage"), ":"), r.Form.Get("tag"))
	if err != nil {
		return err
	}
	o := image.PullOptions{All: ref.Tag == "" && ref.Digest == ""}
	if !r.version.Before(32) {
		o.Platform = r.Form.Get("platform")
	}
	o.Credentials = r.registryAuth()
	out := newProgress(w)
	if err := h.transfers.Pull(r.Context(), ref.String(), o, out.transfer); err != nil {
		return out.fail(unreachable(err))
	}
	return out.begin()
}

// push is POST /images/{name}/push. Without a tag all tags of the repository
// are pushed.
func (h *imageHandlers) push(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	ref, err := named(r.params["name"], r.Form.Get("tag"))
	if err != nil {
		return err
	}
	o := image.PushOptions{All: ref.Tag == "" && ref.Digest == ""}
	if !r.version.Before(46) {
		if o.Platform, err = r.platform("platform"); err != nil {
			return err
		}
	}
	if o.Recompress, err = r.recompress(); err != nil {
		return err
	}
	o.Credentials = r.registryAuth()
	out := newProgress(w)
	if err := h.transfers.Push(r.Context(), ref.String(), o, out.transfer); err != nil {
		return out.fail(unreachable(err))
	}
	return out.begin()
}

// unreachable is what a registry's failure is to Docker's clients: the daemon's own,
// which they take for final. They would ask again, without end, after 503.
func unreachable(err error) error {
	if fault.KindOf(err) == fault.Unavailable {
		return fault.New(fault.Internal, "%w", err)
	}
	return err
}

// named reads a name of which the tag or digest may be told apart; that one
// counts.
func named(name, tag string) (reference.Ref, error) {
	r, err := reference.ParseBare(name)
	if err != nil || tag == "" {
		return r, err
	}
	if !reference.IsTag(tag) && !strings.Contains(tag, ":") {
		return r, errTag
	}
	return reference.ParseBare(join(r.Repository(), tag))
}

// transfer sends a step of a transfer. Whoever does not listen any more ends it
// by the request's context.
func (p *progress) transfer(step image.Progress) {
	m := progressMessage{Message: jsonstream.Message{ID: step.ID, Status: step.Status}}
	switch {
	case step.Total > 0:
		m.Progress = &jsonstream.Progress{Current: step.Current, Total: step.Total}
	case step.ID != "" && !step.Tag, step.Aux != nil: // by this, clients tell layers from tags
		m.Progress = &jsonstream.Progress{}
	}
	if step.Aux != nil {
		data, err := json.Marshal(step.Aux)
		if err != nil {
			return
		}
		m.Aux = (*json.RawMessage)(&data)
	}
	_ = p.send(m)
}
