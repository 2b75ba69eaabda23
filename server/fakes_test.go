package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/build"
	wire "github.com/moby/moby/api/types/container"
	wireimage "github.com/moby/moby/api/types/image"
	wirenet "github.com/moby/moby/api/types/network"
	wireregistry "github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/listing"
	"github.com/tarehq/tare/container/logbook"
	"github.com/tarehq/tare/container/stats"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/volume"
)

// fakeContainers remembers the last call and answers as it is told.
type fakeContainers struct {
	call     string
	created  create.Request
	stop     container.StopOptions
	list     listing.Options
	form     string
	shape    func(*wire.Summary)
	logs     logbook.Options
	attach   container.AttachOptions
	execOpts container.ExecStartOptions
	commit   container.CommitOptions
	updated  wire.UpdateConfig
	on       map[string]map[string]wirenet.EndpointResource // by the network's name

	err     error
	inspect wire.InspectResponse
	wait    chan wire.WaitResponse
	stream  logbook.Stream
	tty     bool
	serve   func(conn net.Conn, buffered []byte)
}

func (f *fakeContainers) Create(_ context.Context, r create.Request) (string, []string, error) {
	f.created = r
	return "c0ffee", nil, f.err
}
func (f *fakeContainers) Start(_ context.Context, id, keys string) error {
	f.call = "start " + id + " " + keys
	return f.err
}
func (f *fakeContainers) Stop(_ context.Context, id string, o container.StopOptions) error {
	f.call, f.stop = "stop "+id, o
	return f.err
}
func (f *fakeContainers) Kill(_ context.Context, id, signal string) error {
	f.call = "kill " + id + " " + signal
	return f.err
}
func (f *fakeContainers) Restart(_ context.Context, id string, o container.StopOptions) error {
	f.call, f.stop = "restart "+id, o
	return f.err
}
func (f *fakeContainers) Remove(_ context.Context, id string, o container.RemoveOptions) error {
	f.call = "remove " + id
	if o.Force {
		f.call += " force"
	}
	return f.err
}
func (f *fakeContainers) Wait(_ context.Context, id string, c wire.WaitCondition) (<-chan wire.WaitResponse, error) {
	f.call = "wait " + id + " " + string(c)
	return f.wait, f.err
}
func (f *fakeContainers) List(_ context.Context, o listing.Options) ([]wire.Summary, error) {
	f.list = o
	return nil, f.err
}
func (f *fakeContainers) Text(_ context.Context, o listing.Options, form string, shape func(*wire.Summary)) ([]byte, error) {
	f.list, f.form, f.shape = o, form, shape
	return []byte("[]\n"), f.err
}
func (f *fakeContainers) Inspect(_ context.Context, id string, _ bool) (wire.InspectResponse, error) {
	f.call = "inspect " + id
	if id == "panic" {
		panic("as asked")
	}
	return f.inspect, f.err
}
func (f *fakeContainers) Counts() (int, int, int) { return 2, 0, 1 }
func (f *fakeContainers) Pause(_ context.Context, id string) error {
	f.call = "pause " + id
	return f.err
}
func (f *fakeContainers) Unpause(_ context.Context, id string) error {
	f.call = "unpause " + id
	return f.err
}
func (f *fakeContainers) Rename(_ context.Context, id, name string) error {
	f.call = "rename " + id + " " + name
	return f.err
}
func (f *fakeContainers) Update(_ context.Context, id string, u wire.UpdateConfig) ([]string, error) {
	f.call, f.updated = "update "+id, u
	return nil, f.err
}

type fakeLogs struct{ *fakeContainers }

func (f fakeLogs) Clear(_ context.Context, id string) error {
	f.call = "clear " + id
	return f.err
}
func (f fakeLogs) Sizes() []logbook.Size {
	return []logbook.Size{{ID: "c", Name: "n", Driver: "json-file", Running: true, Size: 30}, {ID: "d", Size: 12}}
}
func (f fakeLogs) Open(_ context.Context, _ string, o logbook.Options) (logbook.Stream, error) {
	f.logs = o
	return f.stream, f.err
}
func (f *fakeContainers) Attach(_ context.Context, id string, o container.AttachOptions, hijack container.Hijack) error {
	f.call, f.attach = "attach "+id, o
	return f.session(hijack)
}
func (f *fakeContainers) session(hijack container.Hijack) error {
	if f.err != nil {
		return f.err
	}
	conn, head, buffered, err := hijack(f.tty)
	if err == nil && head != nil {
		_, err = conn.Write(head)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	f.serve(conn, buffered)
	return nil
}
func (f *fakeContainers) Resize(_ context.Context, id string, h, w uint16) error {
	f.call = "resize " + id
	return f.err
}

// fakeStats notes its calls with those of the containers.
type fakeStats struct{ *fakeContainers }

func (f fakeStats) Read(_ context.Context, id string, o stats.Options, visit func(wire.StatsResponse) error) error {
	f.call = fmt.Sprintf("stats %s %+v", id, o)
	if f.err != nil {
		return f.err
	}
	for range 2 {
		if err := visit(wire.StatsResponse{ID: id}); err != nil {
			return err
		}
	}
	return nil
}

func (f fakeStats) Top(_ context.Context, id, arguments string) (wire.TopResponse, error) {
	f.call = "top " + id + " " + arguments
	return wire.TopResponse{Titles: []string{"PID"}, Processes: [][]string{{"1"}}}, f.err
}

func (f fakeStats) Prune(_ context.Context, filters map[string]map[string]bool) (wire.PruneReport, error) {
	f.call = fmt.Sprint("prune ", filters)
	return wire.PruneReport{}, f.err
}

// fakeExecs notes its calls with those of the containers.
type fakeExecs struct{ *fakeContainers }

func (f fakeExecs) Create(_ context.Context, id string, r wire.ExecCreateRequest) (string, error) {
	f.call = "exec " + id + " " + strings.Join(r.Cmd, " ")
	return "e1", f.err
}
func (f fakeExecs) Start(_ context.Context, id string, o container.ExecStartOptions, hijack container.Hijack) error {
	f.call, f.execOpts = "exec start "+id, o
	if o.Detach {
		return f.err
	}
	return f.session(hijack)
}
func (f fakeExecs) Inspect(_ context.Context, id string) (wire.ExecInspectResponse, error) {
	return wire.ExecInspectResponse{ID: id}, f.err
}
func (f fakeExecs) Resize(_ context.Context, id string, h, w uint16) error { return f.err }

// fakeFiles notes its calls with those of the containers.
type fakeFiles struct{ *fakeContainers }

func (f fakeFiles) Changes(_ context.Context, id string, visit func(wire.FilesystemChange) error) error {
	f.call = "changes " + id
	if id == "same" {
		return f.err
	}
	for _, c := range []wire.FilesystemChange{{Path: "/etc", Kind: wire.ChangeModify}, {Path: "/etc/<new>", Kind: wire.ChangeAdd}} {
		if err := visit(c); err != nil {
			return err
		}
	}
	return f.err
}
func (f fakeFiles) Export(_ context.Context, id string, w io.Writer) error {
	f.call = "export " + id
	if f.err != nil {
		return f.err
	}
	_, err := io.WriteString(w, "tar")
	return err
}
func (f fakeFiles) Commit(_ context.Context, id string, o container.CommitOptions) (string, error) {
	f.call, f.commit = "commit "+id, o
	return "sha256:1", f.err
}

func (f fakeFiles) Stat(_ context.Context, id, path string) (wire.PathStat, error) {
	f.call = "stat " + id + " " + path
	return wire.PathStat{Name: "n", Size: 3, Mode: os.ModeSymlink | 0o777, LinkTarget: "/t"}, f.err
}
func (f fakeFiles) Archive(_ context.Context, id, path string, begin func(wire.PathStat) (io.Writer, error)) error {
	f.call = "archive " + id + " " + path
	if f.err != nil {
		return f.err
	}
	w, err := begin(wire.PathStat{Name: "n"})
	if err == nil {
		_, err = io.WriteString(w, "tar")
	}
	return err
}
func (f fakeFiles) Extract(_ context.Context, id, path string, o container.ExtractOptions, r io.Reader) error {
	body, err := io.ReadAll(r)
	f.call = fmt.Sprintf("extract %s %s %+v %s", id, path, o, body)
	return errors.Join(err, f.err)
}

type fakeImages struct {
	call     string
	imported image.ImportOptions
	err      error
	cut      func(ctx context.Context) error // how load and save end before their end
	lines    []string
	list     []wireimage.Summary
	briefs   []inventory.Brief
	filters  map[string]map[string]bool
	progress []image.Progress  // what a transfer tells
	cred     image.Credentials // of a transfer
}

func (f *fakeImages) Import(_ context.Context, r io.Reader, o image.ImportOptions) (string, error) {
	b, _ := io.ReadAll(r)
	f.call, f.imported = "import "+string(b), o
	return "sha256:1", f.err
}
func (f *fakeImages) Load(ctx context.Context, r io.Reader, o image.LoadOptions, progress func(string)) error {
	f.call = strings.TrimSpace("load " + strings.Join(o.Platforms, ","))
	if f.cut != nil {
		return f.cut(ctx)
	}
	for _, line := range f.lines {
		progress(line)
	}
	return f.err
}
func (f *fakeImages) Save(ctx context.Context, w io.Writer, refs []string, o image.SaveOptions) error {
	f.call = "save " + strings.Join(refs, ",") + " " + strings.Join(o.Platforms, ",")
	if o.Recompress != nil {
		f.call += fmt.Sprint(" ", *o.Recompress)
	}
	if f.cut != nil {
		io.WriteString(w, "half a tar")
		http.NewResponseController(w.(http.ResponseWriter)).Flush()
		return f.cut(ctx)
	}
	if f.err == nil {
		_, err := io.WriteString(w, "tar")
		return err
	}
	return f.err
}
func (f *fakeImages) Tag(_ context.Context, source, target string) error {
	f.call = "tag " + source + " " + target
	return f.err
}
func (f *fakeImages) Remove(_ context.Context, ref string, o image.RemoveOptions) ([]wireimage.DeleteResponse, error) {
	f.call = strings.TrimSpace("remove " + ref + " " + strings.Join(o.Platforms, ","))
	return nil, f.err
}
func (f *fakeImages) List(_ context.Context, o inventory.ListOptions) ([]wireimage.Summary, error) {
	f.filters = o.Filters
	return f.list, f.err
}
func (f *fakeImages) Brief(_ context.Context, o inventory.ListOptions) ([]inventory.Brief, error) {
	f.filters = o.Filters
	return f.briefs, f.err
}
func (f *fakeImages) Parent(string) string { return "" }

func (f *fakeImages) Inspect(_ context.Context, ref string, o inventory.InspectOptions) (wireimage.InspectResponse, error) {
	f.call = "inspect " + ref
	if o.Platform != "" {
		f.call += " for " + o.Platform
	}
	return wireimage.InspectResponse{ID: "sha256:1", Size: 7}, f.err
}
func (f *fakeImages) History(_ context.Context, ref, platform string) ([]wireimage.HistoryResponseItem, error) {
	f.call = strings.TrimSpace("history " + ref + " " + platform)
	return nil, f.err
}
func (f *fakeImages) Count() int { return 4 }
func (f *fakeImages) Attestations(_ context.Context, ref, platform string, types []string, statements bool) ([]wireimage.AttestationStatement, error) {
	f.call = fmt.Sprintf("attestations %s %s %v %v", ref, platform, types, statements)
	return []wireimage.AttestationStatement{}, f.err
}
func (f *fakeImages) Prune(_ context.Context, filters map[string]map[string]bool) ([]wireimage.DeleteResponse, int64, error) {
	f.filters = filters
	return nil, 42, f.err
}
func (f *fakeImages) Usage(context.Context) (*wireimage.DiskUsage, error) {
	return &wireimage.DiskUsage{TotalCount: 1, TotalSize: 100, Reclaimable: 30, Items: []wireimage.Summary{{ID: "sha256:1", Size: 100, Containers: 3}}}, f.err
}
func (f *fakeImages) Pull(_ context.Context, ref string, o image.PullOptions, progress func(image.Progress)) error {
	f.call, f.cred = fmt.Sprintf("pull %s %v %s", ref, o.All, o.Platform), o.Credentials
	return f.transfer(progress)
}
func (f *fakeImages) Push(_ context.Context, ref string, o image.PushOptions, progress func(image.Progress)) error {
	f.call, f.cred = fmt.Sprintf("push %s %v %s", ref, o.All, o.Platform), o.Credentials
	return f.transfer(progress)
}
func (f *fakeImages) transfer(progress func(image.Progress)) error {
	for _, p := range f.progress {
		progress(p)
	}
	return f.err
}

// fakeNetworks has the networks of a new daemon and one of a user. It notes
// calls with those of the containers.
type fakeNetworks struct{ *fakeContainers }

func (fakeNetworks) List() []wirenet.Summary {
	var out []wirenet.Summary
	for _, name := range []string{"bridge", "host", "none", "mine"} {
		var n wirenet.Summary
		n.Name, n.ID, n.Driver, n.Scope = name, name+"-id", strings.Replace(name, "none", "null", 1), "local"
		if name == "mine" {
			n.Driver, n.Labels, n.Created = "bridge", map[string]string{"a": "1", "b": "2"}, time.Unix(1000, 0)
		}
		out = append(out, n)
	}
	return out
}
func (f fakeNetworks) Inspect(name string) (wirenet.Inspect, error) {
	for _, n := range f.List() {
		if n.Name == name || strings.HasPrefix(n.ID, name) {
			return wirenet.Inspect{Network: n.Network, Containers: f.on[n.Name], Status: &wirenet.Status{}}, nil
		}
	}
	return wirenet.Inspect{}, fault.New(fault.NotFound, "network %s not found", name)
}
func (f fakeNetworks) Create(_ context.Context, r wirenet.CreateRequest) (wirenet.CreateResponse, error) {
	text, _ := json.Marshal(r)
	f.call = "create network " + string(text)
	return wirenet.CreateResponse{ID: "n1", Warning: "w"}, f.err
}
func (f fakeNetworks) Remove(_ context.Context, name string) error {
	f.call = "remove network " + name
	return f.err
}
func (f fakeNetworks) Prune(_ context.Context, wants func(wirenet.Network) bool) (names []string, err error) {
	for _, n := range f.List() {
		if wants(n.Network) && n.Name == "mine" {
			names = append(names, n.Name)
		}
	}
	return names, f.err
}
func (f fakeNetworks) Connect(_ context.Context, container, network string, e *wirenet.EndpointSettings) error {
	text, _ := json.Marshal(e)
	f.call = fmt.Sprintf("connect %s to %s %s", container, network, text)
	return f.err
}
func (f fakeNetworks) Disconnect(_ context.Context, container, network string, force bool) error {
	f.call = fmt.Sprintf("disconnect %s from %s %v", container, network, force)
	return f.err
}
func (f fakeNetworks) Bare(string) map[string]wirenet.EndpointResource {
	return map[string]wirenet.EndpointResource{}
}

func (f fakeNetworks) Limit(_ context.Context, container string, endpoints map[string]*wirenet.EndpointSettings) error {
	text, _ := json.Marshal(endpoints)
	f.call = fmt.Sprintf("limit %s %s", container, text)
	return f.err
}

type fakeCheckpoints struct{ *fakeContainers }

func (f fakeCheckpoints) Create(_ context.Context, nameOrID string, o container.CheckpointOptions) error {
	f.call = fmt.Sprintf("checkpoint %s %+v", nameOrID, o)
	return f.err
}

func (f fakeCheckpoints) List(nameOrID, dir string) ([]string, error) {
	f.call = fmt.Sprintf("checkpoints %s %s", nameOrID, dir)
	return []string{"a", "b"}, f.err
}

func (f fakeCheckpoints) Export(_ context.Context, nameOrID, dir, name string, w io.Writer) error {
	f.call = fmt.Sprintf("export %s of %s %s", name, nameOrID, dir)
	_, _ = io.WriteString(w, "tar")
	return f.err
}

func (f fakeCheckpoints) Import(_ context.Context, nameOrID, name string, from io.Reader) error {
	text, err := io.ReadAll(from)
	f.call = fmt.Sprintf("import %s of %s %s", name, nameOrID, text)
	return errors.Join(err, f.err)
}

func (f fakeCheckpoints) Inspect(nameOrID, dir, name string) (container.Checkpoint, error) {
	f.call = fmt.Sprintf("inspect %s of %s %s", name, nameOrID, dir)
	return container.Checkpoint{Name: name, Size: 7}, f.err
}

func (f fakeCheckpoints) Remove(_ context.Context, nameOrID, dir, name string) error {
	f.call = fmt.Sprintf("remove %s of %s %s", name, nameOrID, dir)
	return f.err
}

func (f fakeCheckpoints) Start(_ context.Context, nameOrID, dir, name string, lazy bool) error {
	f.call = fmt.Sprintf("start %s from %s of %s, lazy: %v", nameOrID, name, dir, lazy)
	return f.err
}

// rig is a server over fakes, listening on a unix socket.
type rig struct {
	*testing.T
	containers  fakeContainers
	images      fakeImages
	registries  fakeRegistries
	authorizers fakeAuthorizers
	builder     fakeBuilder
	events      event.Log
	daemon      Daemon
	path        string
	client      *http.Client
	stop        context.CancelFunc // ends the requests, as a daemon that stops does
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, path: filepath.Join(t.TempDir(), "s"), daemon: Daemon{CgroupDriver: "cgroupfs", LogDriver: "json-file", LogDrivers: []string{"json-file"}, Driver: "overlayfs", DriverStatus: [][2]string{{"driver-type", "x"}}, Version: "1.2.3", ID: "the-id", DataRoot: "/data", Runtimes: map[string]system.Runtime{"tarerun": {}, "runc": {Path: "/usr/bin/runc"}}, DefaultRuntime: "tarerun"}}
	r.containers.stream.Copy = func(context.Context, func(byte, []byte) error) error { return nil }
	l, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(r.handler())
	srv.Listener.Close()
	srv.Listener = l
	base, stop := context.WithCancel(context.Background())
	srv.Config.BaseContext, r.stop = func(net.Listener) context.Context { return base }, stop
	t.Cleanup(stop)
	srv.Start()
	t.Cleanup(srv.Close)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", r.path) }}
	t.Cleanup(transport.CloseIdleConnections)
	r.client = &http.Client{Transport: transport}
	return r
}

func (r *rig) handler() *Server {
	return New(Config{
		Containers: &r.containers, Listing: &r.containers, Logs: fakeLogs{&r.containers}, Execs: fakeExecs{&r.containers}, Files: fakeFiles{&r.containers}, Stats: fakeStats{&r.containers}, Processes: fakeStats{&r.containers}, Pruning: fakeStats{&r.containers}, Images: &r.images, Inventory: &r.images, Transfers: &r.images, Registries: &r.registries, Networks: fakeNetworks{&r.containers}, Firewall: fakeFirewall{}, Places: fakeNetworks{&r.containers}, Checkpoints: fakeCheckpoints{&r.containers}, Volumes: r.openVolumes(), Builder: &r.builder, Authorizers: &r.authorizers, Events: &r.events,
		Daemon: func() Daemon { return r.daemon },
		Log:    slog.New(slog.DiscardHandler),
	})
}

// fakeFirewall has one port open.
type fakeFirewall struct{}

func (fakeFirewall) Rules() string { return "table ip x {\n}\n" }
func (fakeFirewall) Exposure() ([]firewall.Exposure, error) {
	return []firewall.Exposure{{Container: "web"}}, nil
}
func (fakeFirewall) FirewallBackend() string { return "nftables+firewalld" }

// fakeBuilder answers whatever comes with what it was given.
type fakeBuilder struct{ refuse error }

func (b *fakeBuilder) Ready() error { return b.refuse }

func (b *fakeBuilder) Serve(conn net.Conn, read []byte) error {
	defer conn.Close()
	_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(read), read)
	return err
}

func (b *fakeBuilder) Usage(context.Context) (*build.DiskUsage, error) {
	return &build.DiskUsage{}, nil
}

func (b *fakeBuilder) Prune(context.Context, url.Values) (*build.CachePruneReport, error) {
	return &build.CachePruneReport{CachesDeleted: []string{}}, nil
}

func (r *rig) openVolumes() *volume.Service {
	if r.T == nil { // only the table of routes is looked at
		return nil
	}
	r.Helper()
	v, err := volume.Open(r.Context(), volume.Config{DataRoot: r.TempDir(), Events: &r.events, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.Fatal(err)
	}
	return v
}

// do sends a request; headers are "Name: value".
func (r *rig) do(method, path, body string, headers ...string) (int, http.Header, string) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, "http://tare"+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil && r.containers.err == nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, resp.Header, strings.TrimSpace(string(text))
}

// want sends a request and compares status and message, which may be "*".
func (r *rig) want(status int, message, method, path, body string, headers ...string) {
	r.Helper()
	got, header, text := r.do(method, path, body, headers...)
	var e struct{ Message string }
	if got >= 400 {
		if err := json.Unmarshal([]byte(text), &e); err != nil || header.Get("Content-Type") != "application/json" {
			r.Errorf("%s %s: the error is no JSON: %q (%s)", method, path, text, header.Get("Content-Type"))
		}
	}
	if got != status || message != "*" && e.Message != message {
		r.Errorf("%s %s: %d %q, want %d %q", method, path, got, e.Message, status, message)
	}
}

type fakeRegistries struct {
	call   string
	cred   image.Credentials
	search image.SearchOptions
	err    error
}

func (f *fakeRegistries) Login(_ context.Context, host string, cred image.Credentials) (string, error) {
	f.call, f.cred = "login "+host, cred
	return "the-token", f.err
}
func (f *fakeRegistries) Search(_ context.Context, o image.SearchOptions) ([]wireregistry.SearchResult, error) {
	f.call, f.search = "search "+o.Term, o
	return nil, f.err
}
func (f *fakeRegistries) Distribution(_ context.Context, name string, cred image.Credentials) (wireregistry.DistributionInspect, error) {
	f.call, f.cred = "distribution "+name, cred
	return wireregistry.DistributionInspect{}, f.err
}
