package registry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/storage"
)

// api answers requests.
type api struct {
	Config
	*State
}

// State is what requests know of each other. Handlers that follow each other in
// one process, as a configuration changes, have the same.
type State struct {
	quotas  quotas
	tagging keylock.Locks[string] // repository:tag, while a condition on it is looked at
	writers writers
	heavy   chan struct{} // a place for each large manifest in memory
	listing chan struct{} // a place for each list of referrers that is made
	idle    time.Duration // see quotas
}

// NewState is for the first handler.
func NewState() *State {
	return &State{heavy: make(chan struct{}, heavyManifests), listing: make(chan struct{}, listings), idle: idle}
}

// New returns the handler of everything below /v2/.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.State == nil {
		c.State = NewState()
	}
	if c.MaxManifest <= 0 || c.MaxManifest > manifest.MaxSize {
		c.MaxManifest = manifest.MaxSize
	}
	return &api{c, c.State}
}

// request is one on its way.
type request struct {
	*http.Request
	route
	w        http.ResponseWriter
	api      *api
	endpoint *endpoint
	user     string // who asks; known once the authorizer has spoken
	writer   *writer
	problem  *problem
	begun    bool // the answer
}

// operation is what a method does at an endpoint, and the right it needs.
type operation struct {
	needs []Action
	run   func(q *request) error
}

// endpoint is a kind of path, and the codes of what can be wrong about it.
type endpoint struct {
	unknown, invalid code
	methods          map[string]operation
	allow            string
}

// A client that pushes asks for both rights at once: it looks first for what is there.
var (
	toPull   = []Action{Pull}
	toPush   = []Action{Pull, Push}
	toDelete = []Action{Delete}
	toAsk    = []Action{""}
)

var endpoints = [...]endpoint{
	nothing: {unsupported, unsupported, nil, ""},
	base: {unsupported, unsupported, map[string]operation{
		"GET": {toAsk, (*request).hello}, "HEAD": {toAsk, (*request).hello},
	}, "GET, HEAD"},
	catalog: {nameUnknown, unsupported, map[string]operation{
		"GET": {toAsk, (*request).listCatalog}, "HEAD": {toAsk, (*request).listCatalog},
	}, "GET, HEAD"},
	tags: {nameUnknown, unsupported, map[string]operation{
		"GET": {toPull, (*request).listTags}, "HEAD": {toPull, (*request).listTags},
	}, "GET, HEAD"},
	aManifest: {manifestUnknown, manifestInvalid, map[string]operation{
		"GET": {toPull, (*request).getManifest}, "HEAD": {toPull, (*request).getManifest},
		"PUT": {toPush, (*request).putManifest}, "DELETE": {toDelete, (*request).deleteManifest},
	}, "GET, HEAD, PUT, DELETE"},
	aBlob: {blobUnknown, digestInvalid, map[string]operation{
		"GET": {toPull, (*request).getBlob}, "HEAD": {toPull, (*request).getBlob},
		"DELETE": {toDelete, (*request).deleteBlob},
	}, "GET, HEAD, DELETE"},
	uploads: {nameUnknown, blobUploadInvalid, map[string]operation{
		"POST": {toPush, (*request).postUpload},
	}, "POST"},
	anUpload: {blobUploadUnknown, blobUploadInvalid, map[string]operation{
		"GET": {toPush, (*request).getUpload}, "HEAD": {toPush, (*request).getUpload},
		"PATCH": {toPush, (*request).patchUpload}, "PUT": {toPush, (*request).putUpload},
		"DELETE": {toPush, (*request).deleteUpload},
	}, "GET, HEAD, PATCH, PUT, DELETE"},
	referrers: {manifestUnknown, digestInvalid, map[string]operation{
		"GET": {toPull, (*request).listReferrers}, "HEAD": {toPull, (*request).listReferrers},
	}, "GET, HEAD"},
}

// Values of headers that many answers have; nobody changes them.
var (
	apiVersion = []string{"registry/2.0"}
	noSniff    = []string{"nosniff"}
)

// ServeHTTP answers a request. Its path is read as it came: nothing is cleaned
// up or redirected.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &request{Request: r, w: w, api: a, route: parsePath(r.URL.Path)}
	q.endpoint = &endpoints[q.kind]
	h := w.Header()
	h["Docker-Distribution-Api-Version"] = apiVersion
	h["X-Content-Type-Options"] = noSniff
	if err := q.survive(); err != nil {
		q.fail(err)
	}
	if reporter, ok := w.(Reporter); ok {
		reporter.Report(q.outcome())
	}
}

func (q *request) outcome() Outcome {
	o := Outcome{User: q.user}
	if q.problem != nil {
		o.Code, o.Message = string(q.problem.Code), q.problem.Message
	}
	return o
}

// survive serves the request. What makes that panic is one request's matter: it
// is logged, and the client told, unless it has a part of the answer already.
func (q *request) survive() (err error) {
	defer func() {
		switch p := recover(); {
		case p == nil:
		case p == http.ErrAbortHandler:
			panic(p)
		case q.begun:
			q.api.Log.Error("a request panicked", slog.String("path", q.URL.Path), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			panic(http.ErrAbortHandler)
		default:
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return q.serve()
}

// status begins the answer.
func (q *request) status(code int) {
	q.begun = true
	q.w.WriteHeader(code)
}

func (q *request) serve() error {
	if !q.rename() {
		return fault.New(fault.NotFound, "this registry is no mirror of the one that ns= names")
	}
	if r := q.URL.RawPath; q.kind == nothing || r != "" && hidesSlash(r) {
		return refuse(http.StatusNotFound, unsupported, fault.New(fault.NotFound, "there is nothing at this path: the API begins at /v2/"))
	}
	if q.kind > catalog && !storage.ValidRepository(q.repo) {
		return refuse(http.StatusBadRequest, nameInvalid, fault.New(fault.Invalid,
			"invalid repository name: use at most 255 small letters and digits, with single . _ / or - between them"))
	}
	op, ok := q.endpoint.methods[q.Method]
	if !ok {
		q.w.Header().Set("Allow", q.endpoint.allow)
		return fault.New(fault.NotImplemented, "%.20s is not supported here: use %s", q.Method, q.endpoint.allow)
	}
	if err := q.authorize(op.needs); err != nil {
		return err
	}
	return op.run(q)
}

// rename has the request be about the repository that its ns= means.
func (q *request) rename() (ok bool) {
	if q.api.Names == nil || q.kind <= catalog || !strings.Contains(q.URL.RawQuery, "ns=") {
		return true
	}
	ns := q.URL.Query().Get("ns")
	if ns == "" || !storage.ValidRepository(q.repo) {
		return true
	}
	q.repo, ok = q.api.Names(q.repo, ns)
	return ok
}

func (q *request) authorize(needs []Action) (err error) {
	if q.api.Authorizer == nil {
		return nil
	}
	want := make([]Access, len(needs))
	for i, action := range needs {
		want[i] = Access{q.repo, action}
	}
	q.user, err = q.api.Authorizer.Authorize(q.Request, want...)
	return err
}

// mayPull tells whether the client may pull from another repository as well.
func (q *request) mayPull(repo string) bool {
	if q.api.Authorizer == nil {
		return true
	}
	_, err := q.api.Authorizer.Authorize(q.Request, Access{repo, Pull})
	return err == nil
}

// whole is the request's context without its end: what has come in is kept, and
// what was begun is finished, also for a client that went away.
func (q *request) whole() context.Context { return context.WithoutCancel(q.Context()) }

// tell has the registry's observer know of what was acknowledged.
func (q *request) tell(e Event) {
	if q.api.Observe == nil {
		return
	}
	e.Time, e.Repository, e.User = time.Now(), q.repo, q.user
	e.Method, e.Host = q.Method, q.Host
	e.TLS = q.TLS != nil || q.Header.Get("X-Forwarded-Proto") == "https"
	e.RemoteAddr, e.UserAgent, e.RequestID = q.RemoteAddr, q.UserAgent(), q.Header.Get("X-Request-Id")
	q.api.Observe(e)
}

func (q *request) hello() error {
	q.body(http.StatusOK, "application/json; charset=utf-8", []byte("{}"))
	return nil
}

// readDigest reads a digest that the client wrote.
func readDigest(s string) (digest.Digest, error) {
	if d := digest.Digest(s); storage.ValidDigest(d) {
		return d, nil
	}
	return "", refuse(http.StatusBadRequest, digestInvalid,
		fault.New(fault.Invalid, "invalid digest %.200q: use sha256 or sha512, a colon and small hexadecimal digits", s))
}

// isDigest tells whether the name of a manifest is to be a digest: a tag has no colon.
func isDigest(item string) bool { return strings.IndexByte(item, ':') >= 0 }
