package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// An image that is a front end is anybody's program. These bound what it has us
// do: front ends that call others, calls at the same time, the size of a message
// in bytes, and how long it may go on when it has returned its result.
const (
	maxDepth    = 8
	maxCalls    = 256
	maxMessage  = 16 << 20
	endPatience = 5 * time.Second
)

// program is an image that is a front end.
type program struct {
	source     string
	digest     digest.Digest
	image      dockerspec.DockerOCIImage
	definition *llb.Definition
	result     *build.Result
}

// external runs an image as the front end: a container in a step's isolation, to
// which the bridge is served on its standard input and output.
func (b *Bridge) external(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	source := req.FrontendOpt["source"]
	if source == "" {
		return nil, fault.New(fault.Invalid, "no source specified for gateway")
	}
	if _, devel := req.FrontendOpt["gateway-devel"]; devel {
		return nil, fault.New(fault.Invalid, "development gateway is no longer supported")
	}
	inner := *b
	inner.Opts, inner.Defs, inner.depth = maps.Clone(req.FrontendOpt), req.FrontendInputs, b.depth+1
	if inner.depth > maxDepth {
		return nil, fault.New(fault.Invalid, "the front end %s is called by %d others, each by the one before: that is too many", source, b.depth)
	}
	p, err := inner.load(ctx, source)
	if err != nil {
		return nil, err
	}
	if err := p.check(req); err != nil {
		return nil, err
	}
	env, err := inner.environment(p)
	if err != nil {
		return nil, err
	}
	text, err := p.definition.ToPB().MarshalVT()
	if err != nil {
		return nil, err
	}
	r := build.SandboxRequest{CgroupParent: req.FrontendOpt["cgroup-parent"], Mounts: []build.SandboxMount{{Dest: pb.RootMount, Result: p.result}}, Files: map[string][]byte{"/run/config/buildkit/metadata/frontend.bin": text}}
	if none, _ := strconv.ParseBool(p.image.Config.Labels["moby.buildkit.frontend.network.none"]); none {
		r.Network = pb.NetMode_NONE
	}
	sandbox, err := b.Job.Sandbox(ctx, r)
	if err != nil {
		return nil, err
	}
	result, err := inner.converse(ctx, sandbox, p, build.Command{Args: p.command(), Env: env, Cwd: p.image.Config.WorkingDir, Stdin: true})
	return result, errors.Join(err, sandbox.Close())
}

// load has the image here.
func (b *Bridge) load(ctx context.Context, source string) (*program, error) {
	p := &program{source: source}
	ui, err := dockerui.NewClient(b)
	if err != nil {
		return nil, err
	}
	var state *llb.State
	named, err := ui.NamedContext(source, dockerui.ContextOpt{CaptureDigest: &p.digest})
	if err != nil {
		return nil, err
	}
	if named != nil {
		var image *dockerspec.DockerOCIImage
		if state, image, err = named.Load(ctx); err != nil {
			return nil, err
		}
		if image != nil {
			p.image = *image
		}
	}
	if state == nil {
		name, err := reference.Parse(source)
		if err != nil {
			return nil, err
		}
		ref, d, config, err := b.ResolveImageConfig(ctx, name.String(), sourceresolver.Opt{LogName: "resolve image config for docker-image://" + name.String()})
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(config, &p.image); err != nil {
			return nil, fault.New(fault.Invalid, "the front end %s has a config that is damaged: %w", source, err)
		}
		if p.digest = d; d != "" && !strings.Contains(ref, "@") {
			ref += "@" + d.String()
		}
		image := llb.Image(ref)
		state = &image
	}
	if p.definition, err = state.Marshal(ctx); err != nil {
		return nil, err
	}
	p.result, err = b.Job.Solve(ctx, p.definition.ToPB())
	return p, err
}

// check refuses a front end that does not do what is asked for.
func (p *program) check(req gateway.SolveRequest) error {
	has := words(p.image.Config.Labels["moby.buildkit.frontend.caps"])
	wants := words(req.FrontendOpt["frontend.caps"])
	if len(req.FrontendInputs) > 0 {
		wants = append(wants, "moby.buildkit.frontend.inputs")
	}
	for _, w := range wants {
		if !slices.Contains(has, w) {
			return grpcerrors.WrapCode(errdefs.NewUnsupportedFrontendCapError(w), codes.Unimplemented)
		}
	}
	return nil
}

// words are the names of a list of capabilities, without what is said of them.
func words(list string) (names []string) {
	for _, w := range strings.Split(list, ",") {
		if name, _, _ := strings.Cut(w, "+"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (p *program) command() []string {
	if p.image.Config.Entrypoint != nil {
		return p.image.Config.Entrypoint
	}
	return []string{"/run"}
}

// environment tells the front end by the gateway's protocol what is asked for.
func (b *Bridge) environment(p *program) ([]string, error) {
	env := slices.Clone(p.image.Config.Env)
	for i, key := range slices.Sorted(maps.Keys(b.Opts)) {
		env = append(env, fmt.Sprintf("BUILDKIT_FRONTEND_OPT_%d=%s=%s", i, key, b.Opts[key]))
	}
	workers, err := json.Marshal([]gateway.WorkerInfo{b.Worker})
	return append(env, "BUILDKIT_SESSION_ID="+b.Session, "BUILDKIT_WORKERS="+string(workers), "BUILDKIT_EXPORTEDPRODUCT=tare"), err
}

// lastWords is for how long the output of a front end that failed is waited for.
const lastWords = time.Second

// converse runs the front end and serves it until it has returned a result and
// ended.
func (b *Bridge) converse(ctx context.Context, sandbox *build.Sandbox, p *program, c build.Command) (*gateway.Result, error) {
	process, err := sandbox.Start(ctx, c)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "the front end %s cannot be started: %w", p.source, err)
	}
	asked := NewAsked(b)
	defer asked.Close()
	server := grpc.NewServer(grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxCalls))
	gatewaypb.RegisterLLBBridgeServer(server, &Server{Find: func(context.Context) (*Asked, error) { return asked, nil }})
	healthpb.RegisterHealthServer(server, health.NewServer())
	wire := newPipe(process)
	told := &tail{tell: func(data []byte) { b.Job.Log(p.vertex(), 2, data) }}
	var all sync.WaitGroup
	said := make(chan struct{})
	all.Go(func() {
		defer close(said)
		wire.end(process.Copy(wire.in, told))
	})
	all.Go(func() { _ = server.Serve(&single{conn: wire, over: make(chan struct{})}) })
	exit := make(chan error, 1)
	all.Go(func() {
		code, err := process.Wait(ctx)
		if err == nil && code != 0 {
			select { // its last words may be on their way
			case <-said:
			case <-time.After(lastWords):
			}
			err = fault.New(fault.Invalid, "the front end %s ended with exit code: %d%s", p.source, code, told)
		}
		exit <- err
	})
	err = outlast(ctx, asked, exit, wire.closed)
	if errors.Is(err, errSilent) {
		err = fault.New(fault.Invalid, "the front end %s does not speak the gateway's protocol%s", p.source, told)
	}
	asked.Close()
	_ = process.Kill(context.WithoutCancel(ctx)) // it may be over
	server.Stop()
	wire.Close()
	all.Wait()
	return asked.verdict(p.source, err)
}

// errSilent is what a front end meets with which there is no talking.
var errSilent = errors.New("no conversation")

// outlast waits for the front end's end, which must follow its result, or the
// end of the conversation.
func outlast(ctx context.Context, asked *Asked, exit chan error, closed chan struct{}) error {
	patience := endPatience
	select {
	case err := <-exit:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-asked.done:
	case <-closed:
		patience = time.Second // it is to say why
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case err := <-exit:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
	}
	select {
	case <-asked.done:
		return nil // it has said what it had to say
	default:
		return errSilent
	}
}

// verdict is what came of a front end that ended: an error of its own, one of the
// program, or the result.
func (a *Asked) verdict(source string, ended error) (*gateway.Result, error) {
	select {
	case <-a.done:
		if a.err != nil {
			return nil, a.err
		}
		if ended != nil {
			return nil, ended
		}
		return a.result, nil
	default:
	}
	if ended == nil {
		ended = fault.New(fault.Invalid, "the front end %s ended without a result", source)
	}
	return nil, ended
}

// vertex is the one that stands for the image in the progress.
func (p *program) vertex() digest.Digest {
	if len(p.definition.Def) == 0 {
		return ""
	}
	return digest.FromBytes(p.definition.Def[0])
}

// pipe is a process's input and output as a connection.
type pipe struct {
	process *build.Process
	out     *io.PipeReader
	in      *io.PipeWriter
	once    sync.Once
	closed  chan struct{}
}

func newPipe(p *build.Process) *pipe {
	out, in := io.Pipe()
	return &pipe{process: p, out: out, in: in, closed: make(chan struct{})}
}

func (p *pipe) end(err error)                  { p.in.CloseWithError(err) }
func (p *pipe) Read(data []byte) (int, error)  { return p.out.Read(data) }
func (p *pipe) Write(data []byte) (int, error) { return p.process.Write(data) }

// Close ends both directions.
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	p.out.Close()
	return p.process.CloseStdin()
}

func (p *pipe) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "front end", Net: "unix"} }
func (p *pipe) RemoteAddr() net.Addr             { return p.LocalAddr() }
func (p *pipe) SetDeadline(time.Time) error      { return nil }
func (p *pipe) SetReadDeadline(time.Time) error  { return nil }
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }

// single is a listener with one connection.
type single struct {
	conn  net.Conn
	given bool // by the only goroutine that accepts
	once  sync.Once
	over  chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if !s.given {
		s.given = true
		return s.conn, nil
	}
	<-s.over
	return nil, net.ErrClosed
}

func (s *single) Close() error {
	s.once.Do(func() { close(s.over) })
	return nil
}

func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }

// tail tells of what a front end prints, and keeps its last words.
type tail struct {
	tell func([]byte)

	mu   sync.Mutex
	last []byte
}

// maxTail bounds the last words in an error, in bytes.
const maxTail = 2 << 10

func (t *tail) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(data)
	t.last = append(t.last, data...)
	t.last = bytes.Clone(t.last[max(0, len(t.last)-maxTail):])
	return len(data), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := strings.TrimSpace(string(t.last)); text != "" {
		return ": " + text
	}
	return ""
}
