package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/listing"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/server/version"
)

// Containers is what the handlers need of containers; container.Service is it.
type Containers interface {
	Create(ctx context.Context, req create.Request) (id string, warnings []string, err error)
	Start(ctx context.Context, nameOrID, detachKeys string) error
	Stop(ctx context.Context, nameOrID string, o container.StopOptions) error
	Kill(ctx context.Context, nameOrID, signal string) error
	Restart(ctx context.Context, nameOrID string, o container.StopOptions) error
	Remove(ctx context.Context, nameOrID string, o container.RemoveOptions) error
	Wait(ctx context.Context, nameOrID string, condition wire.WaitCondition) (<-chan wire.WaitResponse, error)
	Inspect(ctx context.Context, nameOrID string, size bool) (wire.InspectResponse, error)
	Changing
	Streams
}

// Listing shows containers; listing.Listing is it.
type Listing interface {
	List(ctx context.Context, o listing.Options) ([]wire.Summary, error)
	Text(ctx context.Context, o listing.Options, form string, shape func(*wire.Summary)) ([]byte, error)
	Counts() (running, paused, stopped int)
}

// Changing is what is done to a container that is there.
type Changing interface {
	Pause(ctx context.Context, nameOrID string) error
	Unpause(ctx context.Context, nameOrID string) error
	Rename(ctx context.Context, nameOrID, name string) error
	Update(ctx context.Context, nameOrID string, u wire.UpdateConfig) (warnings []string, err error)
}

// Streams are a container's output, its input and its terminal.
type Streams interface {
	Attach(ctx context.Context, nameOrID string, o container.AttachOptions, hijack container.Hijack) error
	Resize(ctx context.Context, nameOrID string, height, width uint16) error
}

type containerHandlers struct {
	containers    Containers
	listing       Listing
	places        Places
	checkpoints   Checkpoints
	cgroupVersion int
}

func (h *containerHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/containers/json", handle: h.list},
		{method: "POST", pattern: "/containers/create", handle: h.create, decodes: true},
		{method: "GET", pattern: "/containers/{id}/json", handle: h.inspect},
		{method: "POST", pattern: "/containers/{id}/start", handle: h.start},
		{method: "POST", pattern: "/containers/{id}/stop", handle: h.stop},
		{method: "POST", pattern: "/containers/{id}/kill", handle: h.kill},
		{method: "POST", pattern: "/containers/{id}/restart", handle: h.restart},
		{method: "POST", pattern: "/containers/{id}/pause", handle: h.pause},
		{method: "POST", pattern: "/containers/{id}/unpause", handle: h.unpause},
		{method: "POST", pattern: "/containers/{id}/rename", handle: h.rename},
		{method: "POST", pattern: "/containers/{id}/update", handle: h.update, decodes: true},
		{method: "POST", pattern: "/containers/{id}/wait", handle: h.wait},
		{method: "DELETE", pattern: "/containers/{id...}", handle: h.remove}, // a link's name has a slash
	}
}

func (h *containerHandlers) list(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if err := r.version.CheckListFilters(filters); err != nil {
		return err
	}
	limit, err := r.integer("limit")
	if err != nil {
		return err
	}
	o := listing.Options{All: r.flag("all"), Size: r.flag("size"), Filters: filters}
	if limit != nil {
		o.Limit = *limit
	}
	if !o.Size {
		form, shape := r.version.String(), r.version.Summary
		if r.flag("brief") { // a parameter of our own, and so of any version
			form, shape = "brief", briefContainer
		}
		text, err := h.listing.Text(r.Context(), o, form, shape)
		if err != nil {
			return err
		}
		return writeText(w, text)
	}
	list, err := h.listing.List(r.Context(), o)
	if err != nil {
		return err
	}
	for i := range list {
		r.version.Summary(&list[i])
	}
	return writeList(w, list)
}

// briefContainer leaves what a plain list shows, of which there may be a thousand.
func briefContainer(s *wire.Summary) {
	*s = wire.Summary{ID: s.ID, Names: s.Names, Image: s.Image, ImageID: s.ImageID, Command: s.Command, Created: s.Created, Ports: s.Ports, Status: s.Status}
}

func (h *containerHandlers) create(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var body version.CreateBody
	if err := r.json(&body); err != nil {
		return err
	} else if r.Body == nil || r.ContentLength == 0 {
		return errNoBody
	}
	if body.Config == nil {
		return fault.New(fault.Invalid, "config cannot be empty in order to create a container")
	}
	body.Config.Cmd, body.Config.Entrypoint, body.Config.Shell = body.Cmd, body.Entrypoint, body.Shell
	if err := r.version.Create(&body, h.cgroupVersion); err != nil {
		return err
	}
	req := create.Request{
		Name: r.Form.Get("name"), Config: body.Config, HostConfig: body.HostConfig, NetworkingConfig: body.NetworkingConfig,
	}
	if !r.version.Before(41) {
		req.Platform = r.Form.Get("platform")
	}
	id, warnings, err := h.containers.Create(r.Context(), req)
	if err != nil {
		return err
	}
	warnings = append(r.version.CreateWarnings(&body), warnings...)
	if warnings == nil {
		warnings = []string{}
	}
	return writeJSON(w, http.StatusCreated, wire.CreateResponse{ID: id, Warnings: warnings})
}

func (h *containerHandlers) inspect(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	c, err := h.containers.Inspect(r.Context(), r.params["id"], r.flag("size"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, r.version.Container(c))
}

func (h *containerHandlers) start(w http.ResponseWriter, r *request) error {
	// Long ago the body of a start held a host configuration. An empty object
	// still comes from some clients.
	if r.ContentLength > 7 || r.ContentLength == -1 {
		return fault.New(fault.Invalid, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if err := r.form(); err != nil {
		return err
	}
	if name, dir := r.Form.Get("checkpoint"), r.Form.Get("checkpoint-dir"); name != "" || dir != "" {
		if err := h.checkpoints.Start(r.Context(), r.params["id"], dir, name, r.flag("lazy-pages")); err != nil {
			return err
		}
		return noContent(w)
	}
	if err := h.containers.Start(r.Context(), r.params["id"], r.Form.Get("detachKeys")); err != nil {
		return err
	}
	return noContent(w)
}

func (h *containerHandlers) stop(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	if err := h.containers.Stop(r.Context(), r.params["id"], o); err != nil {
		return err
	}
	return noContent(w)
}

func (h *containerHandlers) restart(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	id := r.params["id"]
	if err := h.containers.Restart(r.Context(), id, o); err != nil {
		if errors.Is(err, fault.NotFound) {
			return err
		}
		return withPrefix(err, "Cannot restart container "+id+": ")
	}
	return noContent(w)
}

func stopOptions(r *request) (container.StopOptions, error) {
	var o container.StopOptions
	if err := r.form(); err != nil {
		return o, err
	}
	if !r.version.Before(42) {
		o.Signal = r.Form.Get("signal")
	}
	var err error
	o.Timeout, err = r.integer("t")
	return o, err
}

func (h *containerHandlers) kill(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	id := r.params["id"]
	if err := h.containers.Kill(r.Context(), id, r.Form.Get("signal")); err != nil {
		return withPrefix(err, "cannot kill container: "+id+": ")
	}
	return noContent(w)
}

func (h *containerHandlers) pause(w http.ResponseWriter, r *request) error {
	if err := h.containers.Pause(r.Context(), r.params["id"]); err != nil {
		return err
	}
	return noContent(w)
}

func (h *containerHandlers) unpause(w http.ResponseWriter, r *request) error {
	if err := h.containers.Unpause(r.Context(), r.params["id"]); err != nil {
		return err
	}
	return noContent(w)
}

func (h *containerHandlers) rename(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	if err := h.containers.Rename(r.Context(), r.params["id"], r.Form.Get("name")); err != nil {
		return err
	}
	return noContent(w)
}

// updateBody is Docker's, which says nothing of networks; ours also changes what
// their endpoints' options limit.
type updateBody struct {
	wire.UpdateConfig
	NetworkingConfig *wirenet.NetworkingConfig
}

func (h *containerHandlers) update(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var u updateBody
	if err := r.json(&u); err != nil {
		return err
	}
	var endpoints map[string]*wirenet.EndpointSettings
	if u.NetworkingConfig != nil {
		endpoints = u.NetworkingConfig.EndpointsConfig
	}
	if err := container.CheckLimits(endpoints); err != nil { // before anything is changed
		return err
	}
	r.version.Update(&u.UpdateConfig)
	warnings, err := h.containers.Update(r.Context(), r.params["id"], u.UpdateConfig)
	if err == nil && len(endpoints) > 0 {
		err = h.places.Limit(r.Context(), r.params["id"], endpoints)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, wire.UpdateResponse{Warnings: warnings})
}

// withPrefix puts Docker's words for the operation before an error, unless the
// error has them already.
func withPrefix(err error, prefix string) error {
	if strings.HasPrefix(err.Error(), prefix) {
		return err
	}
	return fault.New(fault.KindOf(err), "%s%w", prefix, err)
}

func (h *containerHandlers) remove(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	o := container.RemoveOptions{Force: r.flag("force"), Volumes: r.flag("v"), Link: r.flag("link")}
	if err := h.containers.Remove(r.Context(), r.params["id"], o); err != nil {
		return err
	}
	return noContent(w)
}

// wait answers when the container has reached the condition. From 1.30 on the
// head of the answer goes out as soon as the wait is registered, so that a
// client can start the container knowing that nothing will be missed.
func (h *containerHandlers) wait(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	condition := wire.WaitConditionNotRunning
	if v := wire.WaitCondition(r.Form.Get("condition")); v != "" && !r.version.Before(30) {
		switch v {
		case wire.WaitConditionNotRunning, wire.WaitConditionNextExit, wire.WaitConditionRemoved:
			condition = v
		default:
			return fault.New(fault.Invalid, "invalid condition: %q", string(v))
		}
	}
	done, err := h.containers.Wait(r.Context(), r.params["id"], condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if !r.version.Before(30) {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
	}
	select {
	case status, ok := <-done:
		if !ok {
			return fmt.Errorf("the wait for container %s ended without a result", r.params["id"])
		}
		if r.version.Before(34) && condition == wire.WaitConditionRemoved && status.Error != nil {
			return nil // an empty answer was how a failed removal was told
		}
		return json.NewEncoder(w).Encode(status)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
