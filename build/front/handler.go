package front

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"google.golang.org/grpc"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/classic"
	"github.com/tarehq/tare/build/front/reply"
	"github.com/tarehq/tare/fault"
)

// handler answers the requests.
type handler struct {
	solver   *build.Solver
	store    build.Store
	sessions *session.Manager
	classic  *classic.Handler
	worker   gateway.WorkerInfo
	builds   *builds
	pace     pace
	grants   []string     // what clients may grant to their builds
	rpc      *grpc.Server // BuildKit's services
	streams  *handed      // connections that became gRPC
}

func newHandler(ctx context.Context, c Config) (*handler, error) {
	solver, err := build.Open(ctx, build.Config{Store: c.Store, Launcher: c.Launcher, Steps: c.Steps, Root: c.Root, CgroupParent: c.CgroupParent, Users: c.Users,
		Rules: c.Rules, Devices: c.Devices, Failed: c.Failed})
	if err != nil {
		return nil, err
	}
	h := &handler{solver: solver, store: c.Store, streams: newHanded(), grants: c.Grants, worker: gateway.WorkerInfo{ID: workerID, Labels: workerLabels(c.HostGateway), Platforms: platforms()}}
	if h.builds, err = newBuilds(filepath.Join(c.Root, "history")); err != nil {
		return nil, err
	}
	if h.sessions, err = session.NewManager(); err != nil {
		return nil, err
	}
	contexts := filepath.Join(c.Root, "contexts")
	if err := os.RemoveAll(contexts); err != nil { // of an earlier process
		return nil, err
	}
	if err := os.MkdirAll(contexts, 0o700); err != nil {
		return nil, err
	}
	h.classic = &classic.Handler{Solver: solver, Store: c.Store, Worker: h.worker, Contexts: contexts, Grants: c.Grants, HostGateway: c.HostGateway, Follow: h.follow}
	h.rpc = h.services()
	go func() { _ = h.rpc.Serve(h.streams) }() // until close
	return h, nil
}

func (h *handler) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /build", h.classic.Build)
	mux.HandleFunc("POST /build/cancel", h.classic.Cancel)
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
func (h *handler) close() {
	h.rpc.Stop()
	h.builds.close()
	h.solver.Close()
}

// session takes the connection on which a client lends its files.
func (h *handler) session(w http.ResponseWriter, r *http.Request) {
	if err := h.sessions.HandleHTTPRequest(r.Context(), w, r); err != nil && !errors.Is(err, context.Canceled) {
		reply.Error(w, fault.New(fault.Invalid, "%w", err))
	}
}
