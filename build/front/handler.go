package front

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/filesync"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
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
}

func newHandler(ctx context.Context, c Config) (http.Handler, error) {
	solver, err := build.Open(ctx, build.Config{Store: c.Store, Launcher: c.Launcher, Steps: c.Steps, Root: c.Root, CgroupParent: c.CgroupParent})
	if err != nil {
		return nil, err
	}
	h := &handler{solver: solver, store: c.Store, contexts: filepath.Join(c.Root, "contexts"),
		worker: gateway.WorkerInfo{ID: "tare", Platforms: platforms()}}
	if h.sessions, err = session.NewManager(); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(h.contexts); err != nil { // of an earlier process
		return nil, err
	}
	if err := os.MkdirAll(h.contexts, 0o700); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /build", h.classic)
	mux.HandleFunc("POST /session", h.session)
	return mux, nil
}

// session takes the connection on which a client lends its files.
func (h *handler) session(w http.ResponseWriter, r *http.Request) {
	if err := h.sessions.HandleHTTPRequest(r.Context(), w, r); err != nil && !errors.Is(err, context.Canceled) {
		writeError(w, err)
	}
}

// own makes a session of this process's own, for a client that has none: it lends
// a directory that is here.
func (h *handler) own(ctx context.Context, dir string, auths map[string]build.Credentials) (session.Caller, func(), error) {
	s, err := session.NewSession(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	files, err := fsutil.NewFS(dir)
	if err != nil {
		return nil, nil, err
	}
	s.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource{"context": files, "dockerfile": files}))
	s.Allow(&credentials{auths: auths})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx, func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _ = h.sessions.HandleConn(ctx, far, meta) }()
			return near, nil
		})
	}()
	end := func() {
		cancel()
		s.Close()
		<-ended
	}
	caller, err := h.sessions.Get(ctx, s.ID(), false)
	if err != nil {
		end()
		return nil, nil, err
	}
	return caller, end, nil
}

// credentials lends those of a request.
type credentials struct {
	auth.UnimplementedAuthServer
	auths map[string]build.Credentials
}

func (c *credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, c) }

func (c *credentials) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	for _, host := range []string{r.Host, "https://" + r.Host, "https://" + r.Host + "/"} {
		if a, ok := c.auths[host]; ok {
			if a.IdentityToken != "" {
				return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
			}
			return &auth.CredentialsResponse{Username: a.Username, Secret: a.Password}, nil
		}
	}
	return &auth.CredentialsResponse{}, nil
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
	var manifests []ocispec.Descriptor
	for _, m := range results {
		d, _, err := x.manifest(ctx, m)
		if err != nil {
			return "", err
		}
		manifests = append(manifests, d)
	}
	target := manifests[0]
	if len(manifests) > 1 {
		text, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
		if err != nil {
			return "", err
		}
		if target, err = x.put(ctx, ocispec.MediaTypeImageIndex, text); err != nil {
			return "", err
		}
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
