// Package bridge is what front ends stand on: they have definitions solved, read
// the results, and return one. A front end is BuildKit's own in this process, or
// a client or a container that speaks the gateway's protocol.
package bridge

import (
	"context"
	"errors"
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
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
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
}

var _ gateway.Client = (*Bridge)(nil)

// missingCaps are not done by our solver; front ends do without.
var missingCaps = map[string]bool{
	string(pb.CapMergeOp): true, string(pb.CapDiffOp): true,
}

// llbCaps are what the solver does.
func llbCaps() []*apicaps.PBCap {
	return slices.DeleteFunc(pb.Caps.All(), func(c *apicaps.PBCap) bool { return missingCaps[c.ID] })
}

// frontCaps are what the bridge does.
func frontCaps() []*apicaps.PBCap {
	return slices.DeleteFunc(gatewaypb.Caps.All(), func(c *apicaps.PBCap) bool {
		return strings.HasPrefix(c.ID, string(gatewaypb.CapGatewayExec)) || c.ID == string(gatewaypb.CapSourceMetaResolverImageAttestations) ||
			c.ID == string(gatewaypb.CapSourceMetaResolverHTTPChecksumRequest)
	})
}

// BuildOpts tells the front end what was asked and what can be done.
func (b *Bridge) BuildOpts() gateway.BuildOpts {
	return gateway.BuildOpts{Opts: b.Opts, SessionID: b.Session, Workers: []gateway.WorkerInfo{b.Worker}, Product: "tare",
		LLBCaps: pb.Caps.CapSet(llbCaps()), Caps: gatewaypb.Caps.CapSet(frontCaps())}
}

// Solve solves a definition, or has another front end make one.
func (b *Bridge) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
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
	case req.Frontend == "dockerfile.v0", req.Frontend == "gateway.v0" && isOwnLanguage(req.FrontendOpt["source"]):
		inner := *b
		inner.Opts, inner.Defs = req.FrontendOpt, req.FrontendInputs
		return dockerfile.Build(ctx, &inner)
	}
	name := req.Frontend
	if source := req.FrontendOpt["source"]; source != "" {
		name = source
	}
	return nil, fault.New(fault.NotImplemented, "the front end %s is not supported yet", name)
}

// isOwnLanguage tells whether an image is the front end that is here already:
// the same program of the same makers, and at least as new. It is not fetched
// unless a digest is asked for.
func isOwnLanguage(ref string) bool {
	name, _, pinned := strings.Cut(ref, "@")
	r, err := reference.Parse(name)
	if err != nil || pinned {
		return false
	}
	repository, tag, _ := strings.Cut(reference.Familiar(r.String()), ":")
	return repository == "docker/dockerfile" && (tag == "latest" || tag == "1" || strings.HasPrefix(tag, "1.") || strings.HasPrefix(tag, "1-") || tag == "labs") ||
		repository == "docker/dockerfile-upstream" && (tag == "master" || tag == "master-labs")
}

// ResolveSourceMetadata tells what a source is now.
func (b *Bridge) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	scheme, ref, _ := strings.Cut(op.Identifier, "://")
	if scheme != "docker-image" {
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
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: img.Target, Config: img.Config}}, nil
}

// imageError says which image it is, in BuildKit's words.
func imageError(ref string, err error) error {
	return fault.New(fault.KindOf(err), "failed to resolve source metadata for %s: %w", ref, err)
}

// ResolveImageConfig is the same, of an image.
func (b *Bridge) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	m, err := b.ResolveSourceMetadata(ctx, &pb.SourceOp{Identifier: "docker-image://" + ref}, opt)
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

// NewContainer is for looking into failed steps.
func (b *Bridge) NewContainer(context.Context, gateway.NewContainerRequest) (gateway.Container, error) {
	return nil, fault.New(fault.NotImplemented, "looking into a step is not supported yet")
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

// wireWarning is a remark of a client that is the front end.
func wireWarning(r *gatewaypb.WarnRequest) *controlapi.VertexWarning {
	return &controlapi.VertexWarning{Vertex: r.Digest, Level: r.Level, Short: r.Short, Detail: r.Detail, Url: r.Url, Info: r.Info, Ranges: r.Ranges}
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
