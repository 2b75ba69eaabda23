package bridge

import (
	"context"
	"sync"

	apitypes "github.com/moby/buildkit/api/types"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/status"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
)

// Server is the service by which clients act as front ends.
type Server struct {
	gatewaypb.UnimplementedLLBBridgeServer
	// Find finds what the caller is the front end of.
	Find func(context.Context) (*Asked, error)
}

// Asked is what the client of a build, as its front end, asked for so far.
type Asked struct {
	bridge *Bridge
	over   context.Context // with Close
	Close  func()

	mu         sync.Mutex
	refs       map[string]*Solution
	containers map[string]*build.Sandbox
	done       chan struct{} // closed when there is a result or an error
	result     *gateway.Result
	err        error
}

// NewAsked begins to take calls. Close ends those under way.
func NewAsked(b *Bridge) *Asked {
	over, cancel := context.WithCancel(context.Background())
	a := &Asked{bridge: b, over: over, refs: map[string]*Solution{}, containers: map[string]*build.Sandbox{}, done: make(chan struct{})}
	a.Close = func() {
		cancel()
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, c := range a.containers {
			_ = c.Close() // what is left is the job's
		}
	}
	return a
}

// maxRefs bounds the results that a front end keeps.
const maxRefs = 10_000

// build is the one that a call belongs to. The call ends with it.
func (s *Server) build(ctx context.Context) (*Asked, context.Context, func(), error) {
	a, err := s.Find(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	if a.over.Err() != nil {
		return nil, nil, nil, fault.New(fault.NotFound, "the build has ended")
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(a.over, cancel)
	return a, ctx, func() { stop(); cancel() }, nil
}

// with carries a call out for the build that it belongs to.
func with[R any](s *Server, ctx context.Context, do func(context.Context, *Asked) (R, error)) (result R, err error) {
	a, ctx, end, err := s.build(ctx)
	if err != nil {
		return result, err
	}
	defer end()
	if result, err = do(ctx, a); err != nil {
		err = a.failed(err)
	}
	return result, err
}

// Result waits for what the front end returns.
func (a *Asked) Result(ctx context.Context) (*gateway.Result, error) {
	select {
	case <-a.done:
		return a.result, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// keep gives a result a name on the wire.
func (a *Asked) keep(r gateway.Reference) (*gatewaypb.Ref, error) {
	s, ok := r.(*Solution)
	if !ok || s == nil {
		return &gatewaypb.Ref{}, nil
	}
	id := idgen.New()[:32]
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.refs) >= maxRefs {
		return nil, fault.New(fault.Invalid, "the front end has %d results, and at most %d are kept", len(a.refs), maxRefs)
	}
	a.refs[id] = s
	return &gatewaypb.Ref{Id: id, Def: s.definition}, nil
}

// ref finds what was kept; nil for a result without anything.
func (a *Asked) ref(id string) (*Solution, error) {
	if id == "" {
		return nil, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.refs[id]
	if s == nil {
		return nil, fault.New(fault.NotFound, "no such ref: %s", id)
	}
	return s, nil
}

// files is what is read of a result.
func (a *Asked) files(id string) (*Solution, error) {
	s, err := a.ref(id)
	if err == nil && s == nil {
		err = fault.New(fault.NotFound, "empty ref: %s", id)
	}
	return s, err
}

func (s *Server) Ping(ctx context.Context, _ *gatewaypb.PingRequest) (*gatewaypb.PongResponse, error) {
	return with(s, ctx, func(_ context.Context, a *Asked) (*gatewaypb.PongResponse, error) {
		w := a.bridge.Worker
		return &gatewaypb.PongResponse{FrontendAPICaps: frontCaps(), LLBCaps: build.Caps(),
			Workers: []*apitypes.WorkerRecord{{ID: w.ID, Labels: w.Labels, Platforms: pb.PlatformsFromSpec(w.Platforms)}}}, nil
	})
}

func (s *Server) Solve(ctx context.Context, r *gatewaypb.SolveRequest) (*gatewaypb.SolveResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.SolveResponse, error) {
		req := gateway.SolveRequest{Evaluate: r.Evaluate, Definition: r.Definition, Frontend: r.Frontend, FrontendOpt: r.FrontendOpt, FrontendInputs: r.FrontendInputs}
		for _, e := range r.CacheImports {
			req.CacheImports = append(req.CacheImports, gateway.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
		}
		result, err := a.bridge.Solve(ctx, req)
		if err != nil {
			return nil, err
		}
		return a.wire(r, result)
	})
}

// wire puts a result into the shape that the client knows.
func (a *Asked) wire(r *gatewaypb.SolveRequest, result *gateway.Result) (*gatewaypb.SolveResponse, error) {
	out := &gatewaypb.Result{Metadata: result.Metadata}
	first := ""
	switch {
	case result.Refs != nil:
		refs, names := map[string]*gatewaypb.Ref{}, map[string]string{}
		for key, ref := range result.Refs {
			kept, err := a.keep(ref)
			if err != nil {
				return nil, err
			}
			refs[key], names[key] = kept, kept.Id
		}
		out.Result = &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{Refs: refs}}
		if !r.AllowResultArrayRef {
			out.Result = &gatewaypb.Result_RefsDeprecated{RefsDeprecated: &gatewaypb.RefMapDeprecated{Refs: names}}
		}
	default:
		ref, err := a.keep(result.Ref)
		if err != nil {
			return nil, err
		}
		first = ref.Id
		out.Result = &gatewaypb.Result_Ref{Ref: ref}
		if !r.AllowResultArrayRef {
			out.Result = &gatewaypb.Result_RefDeprecated{RefDeprecated: ref.Id}
		}
	}
	if err := a.wireAttestations(out, result); err != nil {
		return nil, err
	}
	resp := &gatewaypb.SolveResponse{Result: out}
	if !r.AllowResultReturn {
		resp.Ref = first
	}
	return resp, nil
}

func (a *Asked) wireAttestations(out *gatewaypb.Result, result *gateway.Result) error {
	for key, list := range result.Attestations {
		if out.Attestations == nil {
			out.Attestations = map[string]*gatewaypb.Attestations{}
		}
		all := &gatewaypb.Attestations{}
		for _, x := range list {
			att, err := gateway.AttestationToPB(&x)
			if err != nil {
				return err
			}
			if att.Ref, err = a.keep(x.Ref); err != nil {
				return err
			}
			all.Attestation = append(all.Attestation, att)
		}
		out.Attestations[key] = all
	}
	return nil
}

// readAttestations reads those of a result that is returned.
func (a *Asked) readAttestations(result *gateway.Result, r *gatewaypb.Result) error {
	for key, list := range r.Attestations {
		for _, x := range list.GetAttestation() {
			att, err := gateway.AttestationFromPB[gateway.Reference](x)
			if err != nil {
				return err
			}
			if ref, err := a.ref(x.Ref.GetId()); err != nil {
				return err
			} else if ref != nil {
				att.Ref = ref
			}
			result.AddAttestation(key, *att)
		}
	}
	return nil
}

func platformOf(p *pb.Platform) *sourceresolver.ResolveImageOpt {
	o := &sourceresolver.ResolveImageOpt{}
	if p != nil {
		spec := p.Spec()
		o.Platform = &spec
	}
	return o
}

func (s *Server) ResolveImageConfig(ctx context.Context, r *gatewaypb.ResolveImageConfigRequest) (*gatewaypb.ResolveImageConfigResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.ResolveImageConfigResponse, error) {
		o := platformOf(r.Platform)
		o.ResolveMode = r.ResolveMode
		ref, d, config, err := a.bridge.ResolveImageConfig(ctx, r.Ref, sourceresolver.Opt{LogName: r.LogName, ImageOpt: o})
		if err != nil {
			return nil, err
		}
		return &gatewaypb.ResolveImageConfigResponse{Ref: ref, Digest: d.String(), Config: config}, nil
	})
}

func (s *Server) ResolveSourceMeta(ctx context.Context, r *gatewaypb.ResolveSourceMetaRequest) (*gatewaypb.ResolveSourceMetaResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.ResolveSourceMetaResponse, error) {
		if r.Source == nil {
			return nil, fault.New(fault.Invalid, "source is required")
		}
		o := platformOf(r.Platform)
		o.ResolveMode = r.ResolveMode
		m, err := a.bridge.ResolveSourceMetadata(ctx, r.Source, sourceresolver.Opt{LogName: r.LogName, ImageOpt: o})
		if err != nil {
			return nil, err
		}
		resp := &gatewaypb.ResolveSourceMetaResponse{Source: m.Op}
		if m.Image != nil {
			resp.Image = &gatewaypb.ResolveSourceImageResponse{Digest: m.Image.Digest.String(), Config: m.Image.Config}
		}
		return resp, nil
	})
}

func (s *Server) ReadFile(ctx context.Context, r *gatewaypb.ReadFileRequest) (*gatewaypb.ReadFileResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.ReadFileResponse, error) {
		f, err := a.files(r.Ref)
		if err != nil {
			return nil, err
		}
		data, err := f.ReadFile(ctx, readRequest(r))
		return &gatewaypb.ReadFileResponse{Data: data}, err
	})
}

func readRequest(r *gatewaypb.ReadFileRequest) gateway.ReadRequest {
	req := gateway.ReadRequest{Filename: r.FilePath}
	if r.Range != nil {
		req.Range = &gateway.FileRange{Offset: int(r.Range.Offset), Length: int(r.Range.Length)}
	}
	return req
}

func (s *Server) ReadDir(ctx context.Context, r *gatewaypb.ReadDirRequest) (*gatewaypb.ReadDirResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.ReadDirResponse, error) {
		f, err := a.files(r.Ref)
		if err != nil {
			return nil, err
		}
		list, err := f.ReadDir(ctx, gateway.ReadDirRequest{Path: r.DirPath, IncludePattern: r.IncludePattern})
		return &gatewaypb.ReadDirResponse{Entries: list}, err
	})
}

func (s *Server) StatFile(ctx context.Context, r *gatewaypb.StatFileRequest) (*gatewaypb.StatFileResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.StatFileResponse, error) {
		f, err := a.files(r.Ref)
		if err != nil {
			return nil, err
		}
		st, err := f.StatFile(ctx, gateway.StatRequest{Path: r.Path})
		return &gatewaypb.StatFileResponse{Stat: st}, err
	})
}

func (s *Server) Evaluate(ctx context.Context, r *gatewaypb.EvaluateRequest) (*gatewaypb.EvaluateResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.EvaluateResponse, error) {
		f, err := a.ref(r.Ref)
		if err == nil && f != nil {
			err = f.Evaluate(ctx)
		}
		return &gatewaypb.EvaluateResponse{}, err
	})
}

func (s *Server) Inputs(ctx context.Context, _ *gatewaypb.InputsRequest) (*gatewaypb.InputsResponse, error) {
	return with(s, ctx, func(_ context.Context, a *Asked) (*gatewaypb.InputsResponse, error) {
		return &gatewaypb.InputsResponse{Definitions: a.bridge.Defs}, nil
	})
}

func (s *Server) Warn(ctx context.Context, r *gatewaypb.WarnRequest) (*gatewaypb.WarnResponse, error) {
	return with(s, ctx, func(ctx context.Context, a *Asked) (*gatewaypb.WarnResponse, error) {
		for _, place := range r.Ranges {
			if place == nil {
				return nil, fault.New(fault.Invalid, "invalid source range")
			}
		}
		return &gatewaypb.WarnResponse{}, a.bridge.Warn(ctx, digest.Digest(r.Digest), string(r.Short), gateway.WarnOpts{Level: int(r.Level), SourceInfo: r.Info, Range: r.Ranges, Detail: r.Detail, URL: r.Url})
	})
}

// Return takes what the client made, or why it made nothing.
func (s *Server) Return(ctx context.Context, r *gatewaypb.ReturnRequest) (*gatewaypb.ReturnResponse, error) {
	return with(s, ctx, func(_ context.Context, a *Asked) (*gatewaypb.ReturnResponse, error) {
		result, err := a.read(r)
		if err != nil && r.Error == nil {
			return nil, err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		select {
		case <-a.done:
			return nil, fault.New(fault.Conflict, "the build has its result already")
		default:
		}
		a.result, a.err = result, err
		close(a.done)
		return &gatewaypb.ReturnResponse{}, nil
	})
}

func (a *Asked) read(r *gatewaypb.ReturnRequest) (*gateway.Result, error) {
	if e := r.Error; e != nil {
		if err := grpcerrors.FromGRPC(status.ErrorProto(e)); err != nil {
			return nil, err
		}
		return nil, fault.New(fault.Invalid, "the front end returned an error that says that there is none")
	}
	if r.Result == nil {
		return nil, fault.New(fault.Invalid, "result is required")
	}
	result := gateway.NewResult()
	for key, value := range r.Result.Metadata {
		result.AddMeta(key, value)
	}
	one, many := "", map[string]string(nil)
	switch x := r.Result.Result.(type) {
	case *gatewaypb.Result_Ref:
		one = x.Ref.GetId()
	case *gatewaypb.Result_RefDeprecated:
		one = x.RefDeprecated
	case *gatewaypb.Result_Refs:
		many = map[string]string{}
		for key, ref := range x.Refs.GetRefs() {
			many[key] = ref.GetId()
		}
	case *gatewaypb.Result_RefsDeprecated:
		many = x.RefsDeprecated.GetRefs()
	}
	for key, id := range many {
		ref, err := a.ref(id)
		if err != nil {
			return nil, err
		}
		if ref != nil {
			result.AddRef(key, ref)
		}
	}
	if ref, err := a.ref(one); err != nil {
		return nil, err
	} else if ref != nil {
		result.SetRef(ref)
	}
	return result, a.readAttestations(result, r.Result)
}
