package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	wire "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/reference"
)

// Images is what the handlers need of images; image.Service is it.
type Images interface {
	Import(ctx context.Context, r io.Reader, o image.ImportOptions) (id string, err error)
	Load(ctx context.Context, r io.Reader, o image.LoadOptions, progress func(line string)) error
	Save(ctx context.Context, w io.Writer, refs []string, o image.SaveOptions) error
	Tag(ctx context.Context, source, target string) error
	Remove(ctx context.Context, ref string, o image.RemoveOptions) ([]wire.DeleteResponse, error)
	Prune(ctx context.Context, filters map[string]map[string]bool) (gone []wire.DeleteResponse, freed int64, err error)
}

// Inventory tells of the images that are here; inventory.Listing of image is it.
type Inventory interface {
	List(ctx context.Context, o inventory.ListOptions) ([]wire.Summary, error)
	Brief(ctx context.Context, o inventory.ListOptions) ([]inventory.Brief, error)
	Parent(id string) string
	Inspect(ctx context.Context, ref string, o inventory.InspectOptions) (wire.InspectResponse, error)
	History(ctx context.Context, ref, platform string) ([]wire.HistoryResponseItem, error)
	Attestations(ctx context.Context, ref, platform string, types []string, statements bool) ([]wire.AttestationStatement, error)
	Usage(ctx context.Context) (*wire.DiskUsage, error)
	Count() int
}

type imageHandlers struct {
	images    Images
	inventory Inventory
	transfers Transfers
}

func (h *imageHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/images/json", handle: h.list},
		{method: "GET", pattern: "/images/get", handle: h.save},
		{method: "GET", pattern: "/images/{name...}/get", handle: h.save},
		{method: "GET", pattern: "/images/{name...}/history", handle: h.history},
		{method: "GET", pattern: "/images/{name...}/attestations", handle: h.attestations},
		{method: "GET", pattern: "/images/{name...}/json", handle: h.inspect},
		{method: "POST", pattern: "/images/load", handle: h.load},
		{method: "POST", pattern: "/images/create", handle: h.create},
		{method: "POST", pattern: "/images/prune", handle: h.prune},
		{method: "POST", pattern: "/images/{name...}/push", handle: h.push},
		{method: "POST", pattern: "/images/{name...}/tag", handle: h.tag},
		{method: "DELETE", pattern: "/images/{name...}", handle: h.remove},
	}
}

func (h *imageHandlers) list(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if pattern := r.Form.Get("filter"); pattern != "" && r.version.Before(41) {
		addFilter(filters, "reference", pattern)
	}
	o := inventory.ListOptions{All: r.flag("all"), Filters: filters}
	if r.flag("brief") { // a parameter of our own, and so of any version
		list, err := h.inventory.Brief(r.Context(), o)
		if err != nil {
			return err
		}
		return writeList(w, list)
	}
	if !r.version.Before(42) {
		o.SharedSize = r.flag("shared-size")
	}
	if !r.version.Before(47) {
		o.Manifests = r.flag("manifests")
	}
	if !r.version.Before(54) {
		// Where an image came from is told for each manifest. Nothing comes from
		// a registry or a builder yet.
		o.Manifests = o.Manifests || r.flag("identity")
	}
	list, err := h.inventory.List(r.Context(), o)
	if err != nil {
		return err
	}
	out := r.version.Listed(list)
	if list, ok := out.([]wire.Summary); ok {
		return writeList(w, list)
	}
	return writeJSON(w, http.StatusOK, out)
}

func (h *imageHandlers) inspect(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var o inventory.InspectOptions
	var err error
	if !r.version.Before(48) {
		o.Manifests = r.flag("manifests")
	}
	if !r.version.Before(49) {
		if o.Platform, err = r.platform("platform"); err != nil {
			return err
		}
	}
	img, err := h.inventory.Inspect(r.Context(), r.params["name"], o)
	if err != nil {
		return err
	}
	out, err := r.version.Image(img, h.inventory.Parent)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

func (h *imageHandlers) history(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	var platform string
	var err error
	if !r.version.Before(48) {
		if platform, err = r.platform("platform"); err != nil {
			return err
		}
	}
	items, err := h.inventory.History(r.Context(), r.params["name"], platform)
	if err != nil {
		return err
	}
	if items == nil {
		items = []wire.HistoryResponseItem{}
	}
	return writeJSON(w, http.StatusOK, items)
}

// create is two operations of Docker's: fromImage pulls, fromSrc imports.
func (h *imageHandlers) create(w http.ResponseWriter, r *request) error {
	r.query()
	if r.Form.Get("fromImage") != "" {
		return h.pull(w, r)
	}
	return h.importImage(w, r)
}

// importImage makes an image of the archive in the body, or at an address.
func (h *imageHandlers) importImage(w http.ResponseWriter, r *request) error {
	from := r.Form.Get("fromSrc")
	reference, err := repoTag(r)
	if err != nil {
		return err
	}
	o := image.ImportOptions{Reference: reference, Changes: r.Form["changes"], Message: r.Form.Get("message")}
	if o.Epoch, err = r.epoch(); err != nil {
		return err
	}
	if !r.version.Before(32) {
		o.Platform = r.Form.Get("platform")
	}
	out, body := newProgress(w), io.Reader(r.Body)
	if from != "-" {
		u, err := source(from)
		if err != nil {
			return err
		}
		archive, size, err := fetch(r.Context(), u)
		if err != nil {
			return err
		}
		defer archive.Close()
		if u.User != nil {
			from = u.Redacted() // the image goes to others
		}
		out.send(progressMessage{Message: jsonstream.Message{Status: "Downloading from " + u.Redacted()}})
		body = &told{Reader: archive, out: out, total: size}
	}
	if o.Message == "" {
		o.Message = "Imported from " + from
	}
	id, err := h.images.Import(r.Context(), body, o)
	if err != nil {
		return out.fail(err)
	}
	return out.send(progressMessage{Message: jsonstream.Message{Status: id}})
}

// repoTag joins the parameters repo and tag to a name; "" without a repo.
func repoTag(r *request) (string, error) {
	repo, tag := r.Form.Get("repo"), r.Form.Get("tag")
	if repo == "" {
		return "", nil
	}
	if strings.Contains(repo, "@") {
		return "", fault.New(fault.Invalid, "cannot import digest reference")
	}
	if tag == "" {
		return repo, nil
	}
	if ref, err := reference.Parse(repo); err != nil {
		return "", err
	} else if !reference.IsTag(tag) {
		return "", errTag
	} else {
		return join(ref.FamiliarRepository(), tag), nil // whatever tag the name had
	}
}

var errTag = fault.New(fault.Invalid, "invalid tag format")

// join puts a tag, or a digest where the API takes either, behind a name.
func join(name, tag string) string {
	if strings.Contains(tag, ":") {
		return name + "@" + tag
	}
	return name + ":" + tag
}

func (h *imageHandlers) load(w http.ResponseWriter, r *request) error {
	r.query()
	platforms, err := r.loadPlatforms()
	if err != nil {
		return err
	}
	out := newProgress(w)
	err = h.images.Load(r.Context(), r.Body, image.LoadOptions{Platforms: platforms}, func(line string) {
		out.send(progressMessage{Message: jsonstream.Message{Stream: line + "\n"}})
	})
	if err != nil {
		return out.fail(err)
	}
	return out.begin()
}

func (h *imageHandlers) save(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	names := r.Form["names"]
	if name := r.params["name"]; name != "" {
		names = []string{name}
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "no image to save: name at least one")
	}
	var o image.SaveOptions
	var err error
	if o.Platforms, err = r.loadPlatforms(); err != nil {
		return err
	}
	if o.Recompress, err = r.recompress(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return h.images.Save(r.Context(), w, names, o)
}

func (h *imageHandlers) tag(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	target, err := repoTag(r)
	if err != nil {
		return err
	}
	if target == "" {
		return fault.New(fault.Invalid, "repository name must have at least one component")
	}
	if err := h.images.Tag(r.Context(), r.params["name"], target); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (h *imageHandlers) remove(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	name := r.params["name"]
	if strings.TrimSpace(name) == "" {
		return fault.New(fault.Invalid, "image name cannot be blank")
	}
	o := image.RemoveOptions{Force: r.flag("force"), NoPrune: r.flag("noprune")}
	if !r.version.Before(50) {
		var err error
		if o.Platforms, err = r.platforms("platforms"); err != nil {
			return err
		}
	}
	removed, err := h.images.Remove(r.Context(), name, o)
	if err != nil {
		return err
	}
	if removed == nil {
		removed = []wire.DeleteResponse{}
	}
	return writeJSON(w, http.StatusOK, removed)
}

func (h *imageHandlers) attestations(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	platform, err := r.platform("platform")
	if err != nil {
		return err
	}
	list, err := h.inventory.Attestations(r.Context(), r.params["name"], platform, r.Form["type"], r.flag("statement"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (h *imageHandlers) prune(w http.ResponseWriter, r *request) error {
	if err := r.form(); err != nil {
		return err
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	gone, freed, err := h.images.Prune(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		ImagesDeleted  []wire.DeleteResponse // null when there are none
		SpaceReclaimed int64
	}{gone, freed})
}

// progressMessage is a line of a progress stream. Older clients read an error
// from the field error, newer ones from errorDetail.
type progressMessage struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
}

// progress is a stream of JSON messages, one per line, each sent at once.
type progress struct {
	w       http.ResponseWriter
	enc     *json.Encoder
	control *http.ResponseController
	begun   bool
}

func newProgress(w http.ResponseWriter) *progress {
	return &progress{w: w, enc: json.NewEncoder(w), control: http.NewResponseController(w)}
}

func (p *progress) begin() error {
	if p.begun {
		return nil
	}
	p.begun = true
	p.w.Header().Set("Content-Type", "application/json")
	p.w.WriteHeader(http.StatusOK)
	return p.control.Flush()
}

func (p *progress) send(m progressMessage) error {
	if err := p.begin(); err != nil {
		return err
	}
	if err := p.enc.Encode(m); err != nil {
		return err
	}
	return p.control.Flush()
}

// fail tells the error in the stream, or gives it back as the answer when
// nothing was sent.
func (p *progress) fail(err error) error {
	if !p.begun {
		return err
	}
	return p.send(progressMessage{
		Message:   jsonstream.Message{Error: &jsonstream.Error{Message: err.Error()}},
		ErrorText: err.Error(),
	})
}
