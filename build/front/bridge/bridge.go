// Package bridge is what front ends stand on: they have definitions solved, read
// the results, and return one. A front end is BuildKit's own in this process, or
// a client or a container that speaks the gateway's protocol.
package bridge

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/build/output"
	"github.com/tarehq/tare/fault"
)

// Bridge is what a front end stands on: it has definitions solved and reads the
// results. It is a gateway.Client.
type Bridge struct {
	Job     *build.Job
	Session string // the client's
	Opts    map[string]string
	Defs    map[string]*pb.Definition
	Worker  gateway.WorkerInfo
	Tells   *progress.Record     // for clients of BuildKit's, nil for others
	Plans   func(*pb.Definition) // told of what is to be solved; may be nil
	// Caches has the build use caches from elsewhere; may be nil.
	Caches func(context.Context, []gateway.CacheOptionsEntry)
	Notes  *Notes // nil for nobody who asks how it was made

	depth int // front ends that called each other
}

var _ gateway.Client = (*Bridge)(nil)

// frontCaps are what the bridge does.
func frontCaps() []*apicaps.PBCap {
	return slices.DeleteFunc(gatewaypb.Caps.All(), func(c *apicaps.PBCap) bool {
		return c.ID == string(gatewaypb.CapSourceMetaResolverImageAttestations) ||
			c.ID == string(gatewaypb.CapSourceMetaResolverHTTPChecksumRequest)
	})
}

// BuildOpts tells the front end what was asked and what can be done.
func (b *Bridge) BuildOpts() gateway.BuildOpts {
	return gateway.BuildOpts{Opts: maps.Clone(b.Opts), SessionID: b.Session, Workers: []gateway.WorkerInfo{b.Worker}, Product: "tare",
		LLBCaps: pb.Caps.CapSet(build.Caps()), Caps: gatewaypb.Caps.CapSet(frontCaps())}
}

// Solve solves a definition, or has another front end make one.
func (b *Bridge) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	if b.Caches != nil && len(req.CacheImports) > 0 {
		b.Caches(ctx, req.CacheImports)
	}
	switch {
	case req.Definition != nil && req.Frontend != "":
		return nil, fault.New(fault.Invalid, "a build cannot have a definition and a front end")
	case req.Frontend == "":
		if b.Plans != nil {
			b.Plans(req.Definition)
		}
		r := &Solution{bridge: b, definition: req.Definition}
		if req.Evaluate {
			if err := r.Evaluate(ctx); err != nil {
				return nil, err
			}
		}
		result := gateway.NewResult()
		result.SetRef(r)
		return result, nil
	case req.Frontend == "dockerfile.v0":
		b.Notes.asked(req)
		return b.own(ctx, req)
	case req.Frontend == "gateway.v0":
		b.Notes.asked(req)
		if source := req.FrontendOpt["source"]; isOwn(source) && !b.hasFixed(ctx, source) {
			b.sayOwn(source)
			return b.own(ctx, req)
		}
		return b.external(ctx, req)
	}
	return nil, fault.New(fault.NotFound, "invalid frontend: %s", req.Frontend)
}

// own has the front end of this process make the definition.
func (b *Bridge) own(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	inner := *b
	inner.Opts, inner.Defs = req.FrontendOpt, req.FrontendInputs
	return dockerfile.Build(ctx, &inner)
}

// ResolveSourceMetadata tells what a source is now.
func (b *Bridge) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	scheme, ref, _ := strings.Cut(op.Identifier, "://")
	switch scheme {
	case "docker-image":
	case "oci-layout":
		return b.resolveLayout(ctx, op, ref, opt)
	default:
		return &sourceresolver.MetaResponse{Op: op}, nil
	}
	r := build.ImageRequest{Ref: ref}
	if o := opt.ImageOpt; o != nil {
		if o.Platform != nil {
			r.Platform = *o.Platform
		}
		r.Pull = o.ResolveMode == pb.AttrImageResolveModeForcePull
	}
	vertex, end := digest.Digest(""), func(error) {}
	if b.Tells != nil && opt.LogName != "" {
		vertex, end = progress.Task(b.Tells, opt.LogName)
	}
	img, err := b.Job.Resolve(ctx, vertex, r)
	end(err)
	if err != nil {
		return nil, imageError(ref, err)
	}
	b.Notes.resolved(r, img)
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: img.Target, Config: img.Config}}, nil
}

// resolveLayout tells what an image in a store of the client's is.
func (b *Bridge) resolveLayout(ctx context.Context, op *pb.SourceOp, ref string, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	store, platform := op.Attrs[pb.AttrOCILayoutStoreID], output.OwnPlatform()
	if o := opt.OCILayoutOpt; o != nil {
		if o.Store.StoreID != "" {
			store = o.Store.StoreID
		}
		if o.Platform != nil {
			platform = *o.Platform
		}
	}
	_, d, _ := strings.Cut(ref, "@")
	end := func(error) {}
	if b.Tells != nil && opt.LogName != "" {
		_, end = progress.Task(b.Tells, opt.LogName)
	}
	img, err := b.Job.ResolveLayout(ctx, store, digest.Digest(d), platform)
	end(err)
	if err != nil {
		return nil, imageError(ref, err)
	}
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: img.Target, Config: img.Config}}, nil
}

// imageError says which image it is, in BuildKit's words.
func imageError(ref string, err error) error {
	return fault.New(fault.KindOf(err), "failed to resolve source metadata for %s: %w", ref, err)
}

// ResolveImageConfig is the same, of an image.
func (b *Bridge) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	scheme := "docker-image://"
	if opt.OCILayoutOpt != nil {
		scheme = "oci-layout://"
	}
	m, err := b.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: scheme + ref}, opt)
	if err != nil {
		return "", "", nil, err
	}
	return ref, m.Image.Digest, m.Image.Config, nil
}

// Inputs are the definitions that a front end was given.
func (b *Bridge) Inputs(context.Context) (map[string]llb.State, error) {
	states := map[string]llb.State{}
	for name, def := range b.Defs {
		op, err := llb.NewDefinitionOp(def)
		if err != nil {
			return nil, err
		}
		states[name] = llb.NewState(op)
	}
	return states, nil
}

// NewContainer is for front ends that are elsewhere: see Server.
func (b *Bridge) NewContainer(context.Context, gateway.NewContainerRequest) (gateway.Container, error) {
	return nil, fault.New(fault.NotImplemented, "the front end of this process needs no containers")
}

// Warn passes a remark of the front end on.
func (b *Bridge) Warn(_ context.Context, vertex digest.Digest, text string, o gateway.WarnOpts) error {
	if b.Tells == nil {
		b.Job.Warn(vertex, build.Warning{Level: o.Level, Short: []byte(text), Detail: o.Detail, URL: o.URL})
		return nil
	}
	b.Tells.Remark(&controlapi.VertexWarning{Vertex: vertex.String(), Level: int64(o.Level), Short: []byte(text), Detail: o.Detail, Url: o.URL, Info: o.SourceInfo, Ranges: o.Range})
	return nil
}

// located says where in its source a step is that failed: clients show the lines.
func located(err error, def *pb.Definition) error {
	var failed *build.VertexError
	if !errors.As(err, &failed) {
		return err
	}
	err = errdefs.WrapVertex(err, failed.Vertex)
	source := def.GetSource()
	for _, l := range source.GetLocations()[failed.Vertex.String()].GetLocations() {
		if i := int(l.GetSourceIndex()); i >= 0 && i < len(source.Infos) {
			err = errdefs.WithSource(err, &errdefs.Source{Info: source.Infos[i], Ranges: l.Ranges})
		}
	}
	return err
}
