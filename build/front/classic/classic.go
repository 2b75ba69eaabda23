// Package classic is the builder of old as clients see it: POST /build with a tar,
// and the words of its steps.
package classic

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/bridge"
	"github.com/tarehq/tare/build/front/caching"
	"github.com/tarehq/tare/build/front/reply"
	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/build/output"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Handler answers POST /build and /build/cancel.
type Handler struct {
	Solver   *build.Solver
	Store    build.Store
	Worker   gateway.WorkerInfo
	Contexts string   // directory of contexts that came as a tar
	Grants   []string // what a request may grant to its build
	// HostGateway is the address that host-gateway stands for, "" for none.
	HostGateway string
	// Follow builds as a client of BuildKit's, and tells of it on the way.
	Follow func(context.Context, *controlapi.SolveRequest, func(*controlapi.StatusResponse) error) (*controlapi.SolveResponse, error)

	cancels cancels
}

// Build is POST /build: a context as a tar, everything else in the query, and
// the progress as a stream of JSON.
func (h *Handler) Build(w http.ResponseWriter, r *http.Request) {
	out := reply.New(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	q := r.URL.Query()
	o, err := readRequest(q, h.HostGateway)
	if err == nil {
		defer h.cancels.add(o.id, cancel)()
	}
	if err == nil && o.traced {
		err = h.buildTraced(ctx, o, out)
	} else if err == nil {
		err = h.buildClassic(ctx, r, o, out)
	}
	if err != nil {
		out.Fail(err)
	}
}

func (h *Handler) buildClassic(ctx context.Context, r *http.Request, o *request, out *reply.Stream) error {
	if o.host && !slices.Contains(h.Grants, keep.NetworkHost) {
		return fault.New(fault.Forbidden, "granting entitlement %s is not allowed by build daemon configuration", keep.NetworkHost)
	}
	auths, err := registryAuth(r.Header.Get("X-Registry-Config"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(h.Contexts, "context")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // as what a session sends; nobody gets past its parent
		return err
	}
	progress := newSteps(out, o.quiet, o.front["target"])
	if o.remote != "" {
		o.front["context"] = o.remote // the front end knows git and http
	} else {
		if err := receive(ctx, dir, r.Body); err != nil {
			return err
		}
		text, err := readDockerfile(dir, o.file)
		if err != nil {
			return err
		}
		// Another front end may know a language of its own.
		if err := progress.read(text); err != nil && !elsewhere(text, o.front) {
			return err
		}
		progress.begin()
	}
	files := &unpacked{dir: dir, auths: auths}
	defer files.close()
	job := h.Solver.Job(files, progress, build.JobOptions{Epoch: o.epoch, Network: o.host, Limits: o.limits})
	defer job.Close()
	b := &bridge.Bridge{Job: job, Opts: o.front, Worker: h.Worker, Plans: progress.plan}
	importer := &caching.Importer{Job: job, Here: true}
	importer.Import(ctx, caching.Images(o.caches))
	result, err := dockerfile.Build(ctx, b)
	if err != nil {
		return progress.failed(files.before(ctx, b, progress, err))
	}
	results, err := output.Collect(ctx, result)
	if err != nil {
		return progress.failed(err)
	}
	id, err := output.Publish(ctx, h.Store, results, o.tags, o.epoch, caching.Inline(job, o.inline()))
	if err != nil {
		return progress.failed(err)
	}
	progress.finish(id)
	out.Aux(id)
	if o.quiet {
		out.Say(id + "\n")
		return nil
	}
	progress.unused(o.args)
	out.Say("Successfully built " + short(id) + "\n")
	for _, tag := range o.tags {
		out.Say("Successfully tagged " + reference.Familiar(tag) + "\n")
	}
	return nil
}

// before carries out the stages before the one whose base is the reason of an error,
// as the builder of old has done when it comes to that base, and returns the error
// that comes first. A stage is the last one of a Dockerfile that ends with it.
func (u *unpacked) before(ctx context.Context, b *bridge.Bridge, progress *steps, reason error) error {
	for lines := range progress.before(reason) {
		if err := u.cut(b.Opts["filename"], lines); err != nil {
			return err
		}
		options := maps.Clone(b.Opts)
		delete(options, "target")
		options["dockerfilekey"] = cutName
		result, err := dockerfile.Build(ctx, &bridge.Bridge{Job: b.Job, Opts: options, Worker: b.Worker, Plans: progress.plan})
		if err == nil {
			err = result.EachRef(func(ref gateway.Reference) error { return ref.Evaluate(ctx) })
		}
		if err != nil {
			return err
		}
	}
	return reason
}

// elsewhere tells whether a Dockerfile, or who wants it built, names a front end.
func elsewhere(dockerfile []byte, options map[string]string) bool {
	_, _, _, named := parser.DetectSyntax(dockerfile)
	return named || options["build-arg:BUILDKIT_SYNTAX"] != ""
}

func short(id string) string { return strings.TrimPrefix(id, "sha256:")[:12] }

// maxDockerfile bounds a Dockerfile, in bytes.
const maxDockerfile = 4 << 20

// readDockerfile says in Docker's words that the Dockerfile is missing.
func readDockerfile(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe without a writer is not waited for
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Invalid, "Cannot locate specified Dockerfile: %s", name)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "Forbidden path outside the build context: %s (%w)", name, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, "the Dockerfile %s is no regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxDockerfile))
	if err == nil && len(text) == 0 {
		err = fault.New(fault.Invalid, "The Dockerfile (%s) cannot be empty", name)
	}
	return text, err
}

// cancels are the builds that can be cancelled, by the name that the client gave.
type cancels struct {
	mu   sync.Mutex
	list map[string]func()
}

// add makes a build one that can be cancelled, until end is called, unless another
// has the name.
func (c *cancels) add(id string, cancel func()) (end func()) {
	if id == "" {
		return func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = map[string]func(){}
	}
	if c.list[id] != nil {
		return func() {}
	}
	c.list[id] = cancel
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.list, id)
	}
}

// Cancel is POST /build/cancel. A build that is not there has ended.
func (h *Handler) Cancel(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	if id == "" {
		reply.Error(w, fault.New(fault.Invalid, "build ID not provided"))
		return
	}
	h.cancels.mu.Lock()
	cancel := h.cancels.list[id]
	h.cancels.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	w.Header().Set("Content-Type", "application/json")
}
