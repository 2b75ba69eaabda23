package front

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// handler answers the requests.
type handler struct {
	solver   *build.Solver
	store    build.Store
	sessions *session.Manager
	contexts string // directory of contexts that came as a tar
	worker   gateway.WorkerInfo
	builds   *builds
	cancels  *cancels
	rpc      *grpc.Server // BuildKit's services
	streams  *handed      // connections that became gRPC
}

func newHandler(ctx context.Context, c Config) (*handler, error) {
	solver, err := build.Open(ctx, build.Config{Store: c.Store, Launcher: c.Launcher, Steps: c.Steps, Root: c.Root, CgroupParent: c.CgroupParent})
	if err != nil {
		return nil, err
	}
	h := &handler{solver: solver, store: c.Store, contexts: filepath.Join(c.Root, "contexts"),
		worker: gateway.WorkerInfo{ID: workerID, Labels: workerLabels(), Platforms: platforms()}, cancels: newCancels(), streams: newHanded()}
	if h.builds, err = newBuilds(filepath.Join(c.Root, "history")); err != nil {
		return nil, err
	}
	if h.sessions, err = session.NewManager(); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(h.contexts); err != nil { // of an earlier process
		return nil, err
	}
	if err := os.MkdirAll(h.contexts, 0o700); err != nil {
		return nil, err
	}
	h.rpc = h.services()
	go func() { _ = h.rpc.Serve(h.streams) }() // until close
	return h, nil
}

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /build", h.classic)
	mux.HandleFunc("POST /build/cancel", h.cancel)
	mux.HandleFunc("POST /build/prune", h.prune)
	mux.HandleFunc("GET /build/usage", h.usage)
	mux.HandleFunc("POST /session", h.session)
	mux.HandleFunc("POST /grpc", h.upgrade)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			h.rpc.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// close ends the services, and waits for what they are at.
func (h *handler) close() { h.rpc.Stop() }

// session takes the connection on which a client lends its files.
func (h *handler) session(w http.ResponseWriter, r *http.Request) {
	if err := h.sessions.HandleHTTPRequest(r.Context(), w, r); err != nil && !errors.Is(err, context.Canceled) {
		writeError(w, err)
	}
}

// solveFront has a front end make its definitions, and solves them.
func (h *handler) solveFront(ctx context.Context, b *bridge, front string) ([]made, error) {
	if front != "dockerfile.v0" {
		return nil, fault.New(fault.NotImplemented, "the front end %s is not supported yet", front)
	}
	result, err := dockerfile.Build(ctx, b)
	if err != nil {
		return nil, err
	}
	return h.results(ctx, result)
}

// results solves what is left to be solved, one platform beside the other.
func (h *handler) results(ctx context.Context, r *gateway.Result) ([]made, error) {
	var list exptypes.Platforms
	if text := r.Metadata[exptypes.ExporterPlatformsKey]; text != nil {
		if err := json.Unmarshal(text, &list); err != nil {
			return nil, err
		}
	}
	one := func(ref gateway.Reference, config []byte, p ocispec.Platform) (made, error) {
		m := made{platform: p, config: config}
		if ref == nil {
			return m, nil
		}
		solved, err := ref.(*solution).solved(ctx)
		m.result = solved
		return m, err
	}
	if len(r.Refs) == 0 {
		p := ownPlatform()
		if len(list.Platforms) == 1 {
			p = list.Platforms[0].Platform
		}
		m, err := one(r.Ref, r.Metadata[exptypes.ExporterImageConfigKey], p)
		return []made{m}, err
	}
	var all []made
	for _, p := range list.Platforms {
		m, err := one(r.Refs[p.ID], r.Metadata[exptypes.ExporterImageConfigKey+"/"+p.ID], p.Platform)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// publish makes an image of the results and returns its ID.
func (h *handler) publish(ctx context.Context, results []made, names []string, epoch time.Time) (string, error) {
	x := &exporter{store: h.store, epoch: epoch}
	target, _, err := x.target(ctx, results)
	if err != nil {
		return "", err
	}
	return h.store.Publish(ctx, target, names)
}

func ownPlatform() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

func normalized(name string) (string, error) {
	r, err := reference.Parse(name)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}

func familiar(name string) string { return reference.Familiar(name) }
