package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"strings"

	"github.com/tarehq/tare/fault"
)

// Authorizers are the plugins that must agree to every request and to its
// answer, each by its name and in the order of the list.
type Authorizers interface {
	Names() []string
	// Ask calls the plugin's method, "AuthZPlugin.AuthZReq" or "AuthZPlugin.AuthZRes".
	Ask(ctx context.Context, plugin, method string, question, verdict any) error
}

// question is what a plugin is asked, as Docker's authorization plugins know
// it: https://docs.docker.com/engine/extend/plugins_authorization/.
type question struct {
	User                    string            `json:",omitempty"`
	UserAuthNMethod         string            `json:",omitempty"`
	RequestMethod           string            `json:",omitempty"`
	RequestURI              string            `json:"RequestUri,omitempty"`
	RequestBody             []byte            `json:",omitempty"`
	RequestHeaders          map[string]string `json:",omitempty"`
	RequestPeerCertificates []string          `json:",omitempty"` // PEM
	ResponseBody            []byte            `json:",omitempty"`
	ResponseHeaders         map[string]string `json:",omitempty"`
	ResponseStatusCode      int               `json:",omitempty"`
}

type verdict struct {
	Allow bool
	Msg   string
	Err   string
}

// hearing is one request before its plugins. A request without plugins has none.
type hearing struct {
	plugins Authorizers
	names   []string // as they were when the request came
	q       question
	asked   bool
}

// hear begins one, nil if no plugin is to be asked.
func (s *Server) hear(r *http.Request) *hearing {
	names := s.authorizers.Names()
	if len(names) == 0 {
		return nil
	}
	h := &hearing{plugins: s.authorizers, names: names, q: question{
		RequestMethod: r.Method, RequestURI: r.RequestURI, RequestHeaders: plainHeaders(r.Header)}}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		h.q.User, h.q.UserAuthNMethod = r.TLS.PeerCertificates[0].Subject.CommonName, "TLS"
		for _, c := range r.TLS.PeerCertificates {
			h.q.RequestPeerCertificates = append(h.q.RequestPeerCertificates, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
		}
	}
	return h
}

// plainHeaders are the headers without those that carry passwords.
func plainHeaders(headers http.Header) map[string]string {
	plain := map[string]string{}
	for name, values := range headers {
		if name != "X-Registry-Auth" && name != "X-Registry-Config" {
			plain[name] = strings.Join(values, ",")
		}
	}
	return plain
}

// request asks whether the request may be carried out. Its body is what the handler
// made of the bytes that came, encoded again: a plugin that reads JSON in
// another way than the handler sees no other request. It is nil without one, and
// for a login, whose body is a password.
func (h *hearing) request(ctx context.Context, body any) error {
	if h == nil {
		return nil
	}
	h.asked = true
	if body != nil && !strings.HasSuffix(strings.TrimRight(h.q.RequestURI, "/"), "/auth") {
		var err error
		if h.q.RequestBody, err = json.Marshal(body); err != nil {
			return err
		}
	}
	return h.ask(ctx, "AuthZPlugin.AuthZReq")
}

func (h *hearing) ask(ctx context.Context, method string) error {
	for _, name := range h.names {
		var v verdict
		if err := h.plugins.Ask(ctx, name, method, h.q, &v); err != nil {
			return fault.New(fault.Internal, "plugin %s failed with error: %w", name, err)
		}
		if v.Err != "" {
			return fault.New(fault.Internal, "plugin %s failed with error: %s", name, v.Err)
		}
		if !v.Allow {
			return fault.New(fault.Forbidden, "authorization denied by plugin %s: %s", name, v.Msg)
		}
	}
	return nil
}

// maxHeard is how much of an answer is kept back for the plugins, in bytes. They
// are shown the body of an answer up to this size, and of a longer one and of a stream
// the status and the headers.
const maxHeard = 64 << 10

// answer is a response that waits for its hearing. What a handler has written
// when it flushes, takes the connection over, or goes beyond maxHeard is judged by
// its head.
type answer struct {
	http.ResponseWriter
	ctx     context.Context
	hearing *hearing
	status  int
	body    bytes.Buffer
	open    bool  // it was judged, and goes out as it comes
	refusal error // it was judged and is kept back
}

func (a *answer) WriteHeader(status int) {
	switch {
	case a.open:
		a.ResponseWriter.WriteHeader(status)
	case a.status == 0:
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	if a.refusal != nil {
		return 0, a.refusal
	}
	if !a.open && a.body.Len()+len(p) <= maxHeard {
		return a.body.Write(p)
	}
	if err := a.release(nil); err != nil {
		return 0, err
	}
	return a.ResponseWriter.Write(p)
}

// release has the answer judged, with the body if there is one to show, and
// begins to send it.
func (a *answer) release(body []byte) error {
	if a.open || a.refusal != nil {
		return a.refusal
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	a.hearing.q.ResponseStatusCode, a.hearing.q.ResponseHeaders, a.hearing.q.ResponseBody = a.status, plainHeaders(a.Header()), body
	if a.refusal = a.hearing.ask(a.ctx, "AuthZPlugin.AuthZRes"); a.refusal != nil {
		return a.refusal
	}
	a.open = true
	a.ResponseWriter.WriteHeader(a.status)
	_, err := a.ResponseWriter.Write(a.body.Bytes())
	if a.body.Len() == 0 { // a status that has no body refuses even an empty one
		err = nil
	}
	a.body = bytes.Buffer{}
	return err
}

// FlushError is what http.ResponseController looks for.
func (a *answer) FlushError() error {
	if err := a.release(nil); err != nil {
		return err
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Hijack gives the connection away; the stream that it becomes is judged by
// the request alone, unless an answer was begun.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if a.refusal != nil {
		return nil, nil, a.refusal
	}
	a.open = true
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController find what the answer has not of its own.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// judged runs the handler with the plugins before and behind it.
func (h *hearing) judged(w http.ResponseWriter, r *request, handle handler, hasBody bool) error {
	if h == nil {
		return handle(w, r)
	}
	r.hearing = h
	if !hasBody {
		if err := h.request(r.Context(), nil); err != nil {
			return err
		}
	}
	a := &answer{ResponseWriter: w, ctx: r.Context(), hearing: h}
	err := handle(a, r)
	switch {
	case a.refusal != nil:
		return a.refusal
	case err != nil:
		return err
	case !h.asked:
		return fault.New(fault.Internal, "%s %s was answered without asking the authorization plugins", r.Method, r.URL.Path)
	}
	if a.open {
		return nil
	}
	return a.release(a.body.Bytes())
}
