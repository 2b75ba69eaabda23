// Package server speaks the Docker Engine API over HTTP.
//
// It decodes requests, calls the nouns (container, image, network, volume, event) and
// encodes their answers. Every noun has a file with its handlers and its rows
// of the routing table. What differs between API versions is in package version;
// how errors become statuses is in errors.go, how a connection leaves HTTP in
// hijack.go.
// The package keeps no state of its own: all of it belongs to the nouns.
package server

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/moby/moby/api/types/system"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/server/version"
)

// Config is what a Server is made of. All fields are needed.
type Config struct {
	Containers  Containers
	Listing     Listing
	Logs        Logs
	Execs       Execs
	Files       Files
	Stats       Stats
	Processes   Processes
	Pruning     Pruning
	Images      Images
	Inventory   Inventory
	Transfers   Transfers
	Registries  Registries
	Networks    Networks
	Firewall    Firewall
	Places      Places
	Checkpoints Checkpoints
	Builder     Builder
	Volumes     Volumes

	VolumeCopies    VolumeCopies
	VolumeTransfers VolumeTransfers

	Authorizers Authorizers

	Events *event.Log
	Daemon func() Daemon // as it is now: a reload can change it
	Log    *slog.Logger
}

// Server answers the Engine API. It is an http.Handler for any number of
// listeners, HTTP/1.1 only: attach and exec take the connection over. One that
// begins with HTTP/2 is a builder's client's.
type Server struct {
	routes      map[string][]route // by the first segment of the path
	banner      string             // the header Server
	daemon      func() Daemon
	system      *systemHandlers
	builds      *buildHandlers
	authorizers Authorizers
	log         *slog.Logger
}

// New builds the routing table.
func New(c Config) *Server {
	s := &Server{routes: map[string][]route{}, banner: "Tare/" + c.Daemon().Version + " (linux)", daemon: c.Daemon, log: c.Log}
	host := probeHost()
	s.system = &systemHandlers{c.Daemon, host, c.Listing, c.Inventory, c.Volumes, c.Events, c.Authorizers, c.Firewall}
	s.builds, s.authorizers = &buildHandlers{c.Builder, c.Log}, c.Authorizers
	for _, rows := range [][]route{
		s.system.routes(),
		(&eventHandlers{c.Events}).routes(),
		(&logHandlers{c.Logs}).routes(), // before the containers, whose names may hold slashes when they are removed
		(&checkpointHandlers{c.Checkpoints}).routes(),
		(&containerHandlers{c.Containers, c.Listing, c.Places, c.Checkpoints, host.cgroupVersion}).routes(),
		(&attachHandlers{c.Containers, c.Log}).routes(),
		(&execHandlers{c.Execs, c.Log}).routes(),
		(&fileHandlers{c.Files}).routes(),
		(&statsHandlers{c.Stats, c.Processes}).routes(),
		(&containerPruneHandlers{c.Pruning}).routes(),
		(&registryHandlers{c.Registries}).routes(), // before the images: /images/search is no image
		(&imageHandlers{c.Images, c.Inventory, c.Transfers}).routes(),
		(&usageHandlers{c.Listing, c.Inventory, c.Volumes, c.Logs, c.Builder}).routes(),
		newNetworkHandlers(c).routes(),
		(&firewallHandlers{c.Firewall}).routes(),
		(&pruneHandlers{c.Builder, c.Events}).routes(),
		s.builds.routes(),
		(&volumeCopyHandlers{c.VolumeCopies, c.VolumeTransfers}).routes(),
		(&volumeHandlers{c.Volumes}).routes(),
		pluginRoutes(), swarmRoutes(), unsupportedRoutes(),
	} {
		for _, r := range rows {
			r.segments = split(r.pattern)
			first := r.segments[0]
			s.routes[first] = append(s.routes[first], r)
		}
	}
	return s
}

// Info is what GET /info answers.
func (s *Server) Info() system.Info { return s.system.gather() }

// ServeHTTP finds the handler of a request and turns its error into an answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tw := &tracker{ResponseWriter: w}
	defer s.recover(tw, r)
	h := w.Header()
	h.Set("Api-Version", version.Max.String())
	h.Set("Ostype", "linux")
	h.Set("Server", s.banner)
	h.Set("Docker-Experimental", strconv.FormatBool(s.daemon().Experimental))

	err := s.dispatch(tw, r)
	switch {
	case err == nil:
		s.log.Debug("request", "method", r.Method, "path", r.URL.Path)
	case r.Context().Err() != nil:
		// The client went away, or the daemon is about to. Whoever still
		// listens must not take what is missing for done.
		s.log.Debug("request cut", "method", r.Method, "path", r.URL.Path, "error", err)
		s.fail(tw, r, errStopping)
	default:
		s.fail(tw, r, err)
	}
}

// dispatch runs the handler that the method, the path and its version choose.
func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) error {
	if r.Method == "PRI" && r.ProtoMajor == 2 {
		return s.hear(r).judged(w, &request{Request: r}, func(w http.ResponseWriter, _ *request) error { return s.builds.http2(w) }, false)
	}
	v, path, err := version.Cut(r.URL.Path)
	if err != nil {
		return err
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	row, params := s.find(r.Method, split(path))
	if row == nil {
		return errPageNotFound
	}
	if err := v.Check(); err != nil {
		return err
	}
	return s.hear(r).judged(w, &request{Request: r, version: v, params: params}, row.handle, row.decodes)
}

// fail answers with the error, or cuts the connection when part of another
// answer is already out: a client must not take a truncated stream for whole.
func (s *Server) fail(w *tracker, r *http.Request, err error) {
	status := statusOf(err)
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && status != http.StatusServiceUnavailable {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	} else {
		s.log.Debug("request refused", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	if w.wrote {
		panic(http.ErrAbortHandler)
	}
	writeError(w, status, err)
}

func (s *Server) recover(w *tracker, r *http.Request) {
	reason := recover()
	if reason == nil {
		return
	}
	if reason == http.ErrAbortHandler {
		panic(reason)
	}
	s.log.Error("a request handler panicked", "method", r.Method, "path", r.URL.Path, "panic", reason, "stack", string(debug.Stack()))
	if w.wrote {
		panic(http.ErrAbortHandler)
	}
	writeError(w, http.StatusInternalServerError, errPanicked)
}

// tracker remembers whether the answer has begun. Handlers reach Flush and
// Hijack through http.ResponseController.
type tracker struct {
	http.ResponseWriter
	wrote bool
}

func (t *tracker) WriteHeader(status int) {
	t.wrote = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracker) Write(p []byte) (int, error) {
	t.wrote = true
	return t.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the server's own writer.
func (t *tracker) Unwrap() http.ResponseWriter { return t.ResponseWriter }
