package front

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	apitypes "github.com/moby/buildkit/api/types"
	dockerfileversion "github.com/moby/buildkit/frontend/dockerfile/version"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/bridge"
	"github.com/tarehq/tare/build/front/history"
	"github.com/tarehq/tare/build/front/reply"
	"github.com/tarehq/tare/fault"
)

// maxMessage bounds a message of a client's, in bytes, as BuildKit does.
const maxMessage = 16 << 20

// windowSize is what may be on its way from a client, in bytes. One that is fixed keeps
// gRPC from measuring the way, which takes a ping for each message.
const windowSize = 4 << 20

// services are BuildKit's: the control of builds, and the bridge by which a
// client acts as a front end.
func (h *handler) services() *grpc.Server {
	s := grpc.NewServer(grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.InitialWindowSize(windowSize), grpc.InitialConnWindowSize(windowSize))
	controlapi.RegisterControlServer(s, &control{handler: h})
	gatewaypb.RegisterLLBBridgeServer(s, &bridge.Server{Find: h.builds.asked})
	contentapi.RegisterContentServer(s, &history.Content{History: h.builds.history, Blob: h.store.Blob})
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s
}

// upgrade makes a connection one of gRPC, as a client asks that knows no HTTP/2
// with its daemon.
func (h *handler) upgrade(w http.ResponseWriter, r *http.Request) {
	if proto := r.Header.Get("Upgrade"); !strings.EqualFold(proto, "h2c") {
		err := fault.New(fault.Invalid, "protocol %s not supported", proto)
		if proto == "" {
			err = fault.New(fault.Invalid, "no upgrade proto in request")
		}
		reply.Error(w, err)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		reply.Error(w, err)
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		conn.Close()
		return
	}
	h.streams.give(&ahead{conn, rw.Reader})
}

// ahead is a connection of which something was read.
type ahead struct {
	net.Conn
	r *bufio.Reader
}

func (a *ahead) Read(p []byte) (int, error) {
	if a.r.Buffered() > 0 {
		return a.r.Read(p)
	}
	return a.Conn.Read(p)
}

// workerID is that of the only worker.
const workerID = "tare"

// workerLabels tell buildx what it may ask for. With a snapshotter it takes the
// store for one that keeps whole images, which has it offer all exporters. What
// host-gateway stands for, buildx and compose read here and say themselves.
func workerLabels(gateway string) map[string]string {
	labels := map[string]string{
		"org.mobyproject.buildkit.worker.snapshotter": "tare",
		"org.mobyproject.buildkit.worker.executor":    "tare",
		"org.mobyproject.buildkit.worker.network":     "bridge",
	}
	if gateway != "" {
		labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"] = gateway
	}
	return labels
}

// control is BuildKit's service of the same name.
type control struct {
	controlapi.UnimplementedControlServer
	*handler
}

func (c *control) ListWorkers(context.Context, *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	return &controlapi.ListWorkersResponse{Record: []*apitypes.WorkerRecord{c.record()}}, nil
}

// record is the worker on the wire.
func (h *handler) record() *apitypes.WorkerRecord {
	r := &apitypes.WorkerRecord{ID: h.worker.ID, Labels: h.worker.Labels, Platforms: pb.PlatformsFromSpec(h.worker.Platforms), BuildkitVersion: version()}
	for _, rule := range h.solver.Rules {
		r.GCPolicy = append(r.GCPolicy, &apitypes.GCPolicy{All: rule.All, KeepDuration: int64(rule.Unused), Filters: rule.Filter,
			ReservedSpace: rule.Reserved, MaxUsedSpace: rule.Max, MinFreeSpace: rule.MinFree})
	}
	for _, d := range h.solver.Devices.Described() {
		r.CDIDevices = append(r.CDIDevices, &apitypes.CDIDevice{Name: d.Name, AutoAllow: build.AllowsItself(d), Annotations: d.Annotations})
	}
	return r
}

func (c *control) Info(context.Context, *controlapi.InfoRequest) (*controlapi.InfoResponse, error) {
	return &controlapi.InfoResponse{BuildkitVersion: version()}, nil
}

// version is that of the language, which is BuildKit's.
func version() *apitypes.BuildkitVersion {
	v := &apitypes.BuildkitVersion{Package: "github.com/moby/buildkit", Version: "v0.0.0", DockerfileVersion: dockerfileversion.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == v.Package {
				v.Version = m.Version
			}
		}
	}
	return v
}

// Session takes a client's session on a stream of the same connection.
func (c *control) Session(s controlapi.Control_SessionServer) error {
	conn, closed, meta := grpchijack.Hijack(s)
	defer conn.Close()
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	go func() {
		<-closed
		cancel()
	}()
	return c.sessions.HandleConn(ctx, conn, meta)
}

// ListenBuildHistory tells of builds, now and from now on.
func (c *control) ListenBuildHistory(r *controlapi.BuildHistoryRequest, s controlapi.Control_ListenBuildHistoryServer) error {
	return c.builds.history.Listen(r, c.builds.records(), s)
}

// UpdateBuildHistory pins a build, or has it forgotten.
func (c *control) UpdateBuildHistory(_ context.Context, r *controlapi.UpdateBuildHistoryRequest) (*controlapi.UpdateBuildHistoryResponse, error) {
	return &controlapi.UpdateBuildHistoryResponse{}, c.builds.history.Update(r)
}
