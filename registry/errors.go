package registry

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"syscall"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// code is an error identifier of the specification, or one of those that
// Docker's clients know besides.
type code string

const (
	blobUnknown         code = "BLOB_UNKNOWN"
	blobUploadInvalid   code = "BLOB_UPLOAD_INVALID"
	blobUploadUnknown   code = "BLOB_UPLOAD_UNKNOWN"
	digestInvalid       code = "DIGEST_INVALID"
	manifestBlobUnknown code = "MANIFEST_BLOB_UNKNOWN"
	manifestInvalid     code = "MANIFEST_INVALID"
	manifestUnknown     code = "MANIFEST_UNKNOWN"
	nameInvalid         code = "NAME_INVALID"
	nameUnknown         code = "NAME_UNKNOWN"
	sizeInvalid         code = "SIZE_INVALID"
	unauthorized        code = "UNAUTHORIZED"
	denied              code = "DENIED"
	unsupported         code = "UNSUPPORTED"
	tagInvalid          code = "TAG_INVALID"
	unavailable         code = "UNAVAILABLE" // with status 503
	unknown             code = "UNKNOWN"     // with status 500

	// TooManyRequests goes with Refuse and a Retry-After.
	TooManyRequests = "TOOMANYREQUESTS"
)

// problem is an error as the client reads it.
type problem struct {
	status int
	also   []*problem // further ones of the same request

	Code    code   `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

func (p *problem) Error() string { return p.Message }

// refuse makes a problem out of an error's sentence.
func refuse(status int, c code, err error) *problem {
	return &problem{status: status, Code: c, Message: err.Error()}
}

// answers says how each kind of error is told. Where the code is "", it is that
// of what the request is about.
var answers = map[fault.Kind]struct {
	status int
	code   code
}{
	fault.Internal:       {http.StatusInternalServerError, unknown},
	fault.NotFound:       {http.StatusNotFound, ""},
	fault.Conflict:       {http.StatusConflict, denied},
	fault.Invalid:        {http.StatusBadRequest, ""},
	fault.NotModified:    {http.StatusConflict, denied},
	fault.Unauthorized:   {http.StatusUnauthorized, unauthorized},
	fault.Forbidden:      {http.StatusForbidden, denied},
	fault.Unavailable:    {http.StatusServiceUnavailable, unavailable},
	fault.NotImplemented: {http.StatusMethodNotAllowed, unsupported},
}

var errFull = errors.New("the disk of the registry is full: ask whoever runs it to make room, then push again")

func isFull(err error) bool {
	return errors.Is(err, fault.Unavailable) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// explain turns an error into what the client is told. Failures of the storage
// are not told in the storage's words: these are for whoever runs it.
func (e *endpoint) explain(err error) *problem {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	kind := fault.KindOf(err)
	if c := (*Challenge)(nil); errors.As(err, &c) {
		kind = fault.Unauthorized
	}
	a := answers[kind]
	p := refuse(a.status, a.code, err)
	switch {
	case kind == fault.NotFound:
		p.Code = e.unknown
	case kind == fault.Invalid:
		p.Code = e.invalid
	case kind == fault.Unavailable && errors.As(err, new(*storage.UpstreamError)):
	case isFull(err):
		// Docker's clients show no sentence of a 5xx, and try again for a minute.
		p = refuse(http.StatusForbidden, denied, errFull)
	case kind == fault.Unavailable:
		p.Message = "the registry's storage does not answer: try again later"
	case a.status == http.StatusInternalServerError:
		p.Message = "the registry failed: whoever runs it finds the reason in its log"
	}
	return p
}

// fail answers with the error, and logs what is the registry's own failure.
func (q *request) fail(err error) {
	p := q.endpoint.explain(err)
	q.problem = p
	if (p.status >= http.StatusInternalServerError || isFull(err)) && q.Context().Err() == nil {
		q.api.Log.Error("a request failed", slog.String("method", q.Method), slog.String("path", q.URL.Path),
			slog.String("id", q.Header.Get("X-Request-Id")), slog.Any("error", err))
	}
	h := q.w.Header()
	var challenge *Challenge
	if p.status == http.StatusUnauthorized && errors.As(err, &challenge) && challenge.Header != "" {
		h.Set("WWW-Authenticate", challenge.Header)
	}
	for _, name := range []string{"Etag", "Cache-Control", "Docker-Content-Digest"} {
		h.Del(name) // they were to describe what the client does not get
	}
	q.body(p.status, "application/json; charset=utf-8", p.document())
}

// document is what a client is sent of it.
func (p *problem) document() []byte {
	body, err := json.Marshal(struct {
		Errors []*problem `json:"errors"`
	}{append([]*problem{p}, p.also...)})
	if err != nil {
		return []byte(`{"errors":[{"code":"UNKNOWN"}]}`)
	}
	return body
}

// Refuse answers, in the API's form, a request that is not to reach it.
func Refuse(w http.ResponseWriter, r *http.Request, status int, errorCode, sentence string) {
	q := &request{Request: r, w: w}
	q.problem = &problem{status: status, Code: code(errorCode), Message: sentence}
	h := w.Header()
	h["Docker-Distribution-Api-Version"], h["X-Content-Type-Options"] = apiVersion, noSniff
	q.body(status, "application/json; charset=utf-8", q.problem.document())
	if reporter, ok := w.(Reporter); ok {
		reporter.Report(q.outcome())
	}
}

// body answers with a document; HEAD gets its size alone.
func (q *request) body(status int, mediaType string, data []byte) {
	h := q.w.Header()
	h["Content-Type"] = []string{mediaType}
	h["Content-Length"] = []string{strconv.Itoa(len(data))}
	q.w.WriteHeader(status)
	if q.Method != http.MethodHead {
		_, _ = q.w.Write(data) // a client that went away needs no answer
	}
}
