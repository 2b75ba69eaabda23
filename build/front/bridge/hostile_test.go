package bridge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/output"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

var errNothing = errors.New("nothing is lent here")

// poor lends nothing, but knows one image without layers.
type poor struct{ build.Store }

func (poor) Resolve(context.Context, build.ImageRequest, func(build.Transfer)) (build.Image, error) {
	d := digest.FromString("image")
	return build.Image{Target: d, Manifest: ocispec.Descriptor{Digest: d}, Config: []byte(`{}`)}, nil
}
func (poor) Fetch(context.Context, build.ImageRequest, build.Image, func(build.Transfer)) error {
	return nil
}
func (poor) Needed(context.Context) ([]digest.Digest, error)    { return nil, nil }
func (poor) Has(context.Context, digest.Digest) (bool, error)   { return false, nil }
func (poor) Discard(context.Context, string) error              { return nil }
func (poor) Pin(context.Context, []digest.Digest) error         { return nil }
func (poor) Detach(context.Context, string) error               { return nil }
func (poor) Size(context.Context, digest.Digest) (int64, error) { return 0, nil }
func (poor) Prepare(context.Context, string, digest.Digest) (snapshot.Mount, error) {
	return snapshot.Mount{}, errNothing
}
func (poor) View(context.Context, digest.Digest) (snapshot.Mount, error) {
	return snapshot.Mount{}, errNothing
}
func (poor) Attach(context.Context, string, string) (build.Place, error) {
	return build.Place{}, errNothing
}
func (poor) Blob(context.Context, digest.Digest) (io.ReadCloser, error) {
	return nil, errNothing
}
func (poor) Document(context.Context, build.ImageRequest) (ocispec.Descriptor, []byte, error) {
	return ocispec.Descriptor{}, nil, errNothing
}
func (poor) FetchBlob(context.Context, build.ImageRequest, ocispec.Descriptor, func(build.Transfer)) error {
	return errNothing
}

// liar is a client that has nothing but one blob, whatever it is asked for.
type liar struct{ blob string }

func (liar) Client() string { return "" }
func (liar) Local(context.Context, build.LocalRequest, string, func(int, bool)) error {
	return errNothing
}
func (liar) Secret(context.Context, string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "no secret")
}
func (liar) SSH(context.Context, string) (net.Conn, error) { return nil, errNothing }
func (liar) Credentials(context.Context, string) (build.Credentials, error) {
	return build.Credentials{}, nil
}
func (liar) Upload(context.Context, *url.URL, io.Writer) error { return errNothing }
func (l liar) Content(_ context.Context, _ string, _ ocispec.Descriptor, read func(io.Reader) error) error {
	return read(strings.NewReader(l.blob))
}
func (liar) Vertex(build.VertexStatus)         {}
func (liar) Status(build.TaskStatus)           {}
func (liar) Log(digest.Digest, int, []byte)    {}
func (liar) Warn(digest.Digest, build.Warning) {}

// served is the bridge of a build whose client is hostile.
func served(t *testing.T, blob string) (*Asked, *Server, context.Context) {
	dir := t.TempDir()
	s, err := build.Open(t.Context(), build.Config{Store: poor{}, Steps: dir, Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	j := s.Job(liar{blob}, liar{}, build.JobOptions{})
	t.Cleanup(j.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	a := NewAsked(&Bridge{Job: j, Session: "s", Opts: map[string]string{}, Notes: &Notes{}})
	t.Cleanup(a.Close)
	return a, &Server{Find: func(context.Context) (*Asked, error) { return a, nil }}, ctx
}

// collected is what comes of what the front end returned.
func collected(ctx context.Context, a *Asked) error {
	select {
	case <-a.done:
	default:
		return errors.New("nothing was returned")
	}
	result, err := a.Result(ctx)
	if err != nil {
		return err
	}
	_, err = output.Collect(ctx, result)
	return err
}

// An error of a front end may say that there is none (CVE-2024-23650).
func TestReturnOfNothing(t *testing.T) {
	a, s, ctx := served(t, "")
	if _, err := s.Return(ctx, &gatewaypb.ReturnRequest{Error: &spb.Status{Code: 0, Message: "fine"}}); err != nil {
		t.Logf("refused: %v", err)
	}
	if err := collected(ctx, a); err == nil {
		t.Error("it is a result")
	}
}

// What a client's store says of an image may name no blob at all.
func TestLayoutOfNothing(t *testing.T) {
	for _, config := range []string{``, `,"config":{"digest":"x"}`, `,"config":{"digest":"md5:0123"}`} {
		blob := `{"schemaVersion":2` + config + `}`
		_, s, ctx := served(t, blob)
		_, err := s.ResolveSourceMeta(ctx, &gatewaypb.ResolveSourceMetaRequest{Source: &pb.SourceOp{Identifier: "oci-layout://store@" + digest.FromString(blob).String()}})
		if err == nil || !strings.Contains(err.Error(), "is no digest") {
			t.Errorf("of %s: %v", blob, err)
		}
	}
}

// call carries out one of the bridge's calls, of which the first byte says which.
func call(ctx context.Context, s *Server, which byte, data []byte) {
	try := func(m proto.Message, do func()) {
		if proto.Unmarshal(data, m) == nil {
			do()
		}
	}
	switch which % 12 {
	case 0:
		var r gatewaypb.SolveRequest
		try(&r, func() {
			if harmless(r.Definition) && r.Frontend != "gateway.v0" {
				_, _ = s.Solve(ctx, &r)
			}
		})
	case 1:
		var r gatewaypb.ReturnRequest
		try(&r, func() { _, _ = s.Return(ctx, &r) })
	case 2:
		var r gatewaypb.ResolveImageConfigRequest
		try(&r, func() { _, _ = s.ResolveImageConfig(ctx, &r) })
	case 3:
		var r gatewaypb.ResolveSourceMetaRequest
		try(&r, func() { _, _ = s.ResolveSourceMeta(ctx, &r) })
	case 4:
		var r gatewaypb.ReadFileRequest
		try(&r, func() { _, _ = s.ReadFile(ctx, &r) })
	case 5:
		var r gatewaypb.ReadDirRequest
		try(&r, func() { _, _ = s.ReadDir(ctx, &r) })
	case 6:
		var r gatewaypb.StatFileRequest
		try(&r, func() { _, _ = s.StatFile(ctx, &r) })
	case 7:
		var r gatewaypb.NewContainerRequest
		try(&r, func() { _, _ = s.NewContainer(ctx, &r) })
	case 8:
		var r gatewaypb.WarnRequest
		try(&r, func() { _, _ = s.Warn(ctx, &r) })
	case 9:
		var r gatewaypb.EvaluateRequest
		try(&r, func() { _, _ = s.Evaluate(ctx, &r) })
	case 10:
		var r gatewaypb.ReleaseContainerRequest
		try(&r, func() { _, _ = s.ReleaseContainer(ctx, &r) })
	case 11:
		var r gatewaypb.ReadFileRequest
		try(&r, func() { _, _ = s.ReadFileContainer(ctx, &r) })
	}
}

// harmless tells whether a definition asks neither the network nor a program.
func harmless(def *pb.Definition) bool {
	for _, op := range def.GetDef() {
		var o pb.Op
		if o.UnmarshalVT(op) == nil && o.GetSource() != nil && !strings.HasPrefix(o.GetSource().Identifier, "docker-image://") {
			return false
		}
	}
	return true
}

func FuzzGateway(f *testing.F) {
	add := func(which byte, m proto.Message) {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(which, data)
	}
	add(0, &gatewaypb.SolveRequest{})
	add(0, &gatewaypb.SolveRequest{Evaluate: true, Definition: &pb.Definition{Def: [][]byte{{}}}})
	add(0, &gatewaypb.SolveRequest{Frontend: "dockerfile.v0", FrontendInputs: map[string]*pb.Definition{"context": {}, "dockerfile": {Def: [][]byte{{0}}}}})
	add(0, &gatewaypb.SolveRequest{CacheImports: []*gatewaypb.CacheOptionsEntry{{Type: "registry"}}})
	add(1, &gatewaypb.ReturnRequest{})
	add(1, &gatewaypb.ReturnRequest{Error: &spb.Status{}})
	add(1, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{Result: &gatewaypb.Result_Refs{}}})
	add(1, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{Metadata: map[string][]byte{"refs.platforms": []byte(`{"Platforms":[{"ID":"x"},{}]}`), "containerimage.config": []byte("null")},
		Result: &gatewaypb.Result_Refs{Refs: &gatewaypb.RefMap{Refs: map[string]*gatewaypb.Ref{"x": {}}}}}})
	add(1, &gatewaypb.ReturnRequest{Result: &gatewaypb.Result{Attestations: map[string]*gatewaypb.Attestations{"": {Attestation: []*gatewaypb.Attestation{{}, {InTotoSubjects: []*gatewaypb.InTotoSubject{{}}}}}}}})
	add(2, &gatewaypb.ResolveImageConfigRequest{Ref: "@"})
	add(3, &gatewaypb.ResolveSourceMetaRequest{})
	add(3, &gatewaypb.ResolveSourceMetaRequest{Source: &pb.SourceOp{Identifier: "oci-layout://x@sha256:1"}})
	add(3, &gatewaypb.ResolveSourceMetaRequest{Source: &pb.SourceOp{Identifier: "docker-image://"}, Platform: &pb.Platform{}})
	add(4, &gatewaypb.ReadFileRequest{Range: &gatewaypb.FileRange{Offset: -1, Length: -1}})
	add(7, &gatewaypb.NewContainerRequest{Network: 99, Mounts: []*pb.Mount{{Dest: "/"}, {Dest: "/x", MountType: 77}}, ExtraHosts: []*pb.HostIP{{}}})
	add(8, &gatewaypb.WarnRequest{Digest: "x", Ranges: []*pb.Range{{}}, Info: &pb.SourceInfo{}})
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		a, s, ctx := served(t, "")
		call(ctx, s, which, data)
		_ = collected(ctx, a)
	})
}
