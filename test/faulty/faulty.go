// Package faulty is an HTTP proxy for tests that stands in front of a registry
// and does what networks and bad servers do: it cuts connections, is slow,
// changes bytes, lies about lengths, refuses for a while and redirects. It
// records all requests, so that tests can count what was fetched.
package faulty

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/test/registry"
)

// Request is what was asked and what became of it.
type Request struct {
	Method string
	Host   string
	Path   string
	Query  url.Values
	Range  string // the header
	Header http.Header
	Nth    int // how many of the same method and path were before: 0 for the first

	Status   int   // of the answer; 0 while there is none
	Sent     int64 // bytes of the answer's body, so far
	Received int64 // bytes of the request's body
	Done     bool  // the answer has ended, well or not
}

var blobPath = regexp.MustCompile(`/blobs/([a-z0-9]+:[0-9a-f]+)$`)

// Blob is the digest of the blob that is asked for, "" for other requests.
func (r *Request) Blob() string {
	if m := blobPath.FindStringSubmatch(r.Path); m != nil {
		return m[1]
	}
	return ""
}

// Authorized tells whether credentials came along.
func (r *Request) Authorized() bool { return r.Header.Get("Authorization") != "" }

// Fault is what is done to one request. What is zero is left alone.
type Fault struct {
	Delay time.Duration   // before anything
	Wait  <-chan struct{} // until it is closed, before anything

	Status   int         // answer this instead of asking the registry
	Header   http.Header // set in the answer, whoever gives it; an empty value removes
	Body     string      // with Status
	Redirect string      // answer 307 with this Location

	IgnoreRange bool // ask for the whole, with status 200
	Ranged      bool // answer 206 with the whole's Content-Range even if no range was asked for

	Cut        bool           // break the connection after CutAfter bytes of the body
	CutAfter   int64          //
	Reset      bool           // break it by RST, not FIN
	Stall      bool           // at CutAfter, send nothing more until the client or the test ends
	CutUpload  bool           // break it after UploadAfter bytes of the request's body
	UploadTo   int64          // bytes that the registry still gets
	Rate       int64          // bytes a second of the answer, at most
	Corrupt    bool           // flip the bits of the byte at CorruptAt of the body
	CorruptAt  int64          //
	Length     int64          // pretend this Content-Length, and send the body as it is
	Chunked    bool           // tell no Content-Length
	Endless    byte           // when not 0: go on with this byte after the body, for as long as the client reads
	Swallow    bool           // on a request with a body: let the registry do it, then break the connection unanswered
	BeforeBody func(*Request) // called when the answer's head has gone out
}

// Options say what the proxy stands in front of.
type Options struct {
	Registry *registry.Registry // with TLS when it has
	Target   string             // or a base URL
	Handler  http.Handler       // or a server of the test's own
	Plain    bool               // speak HTTP even when the registry speaks HTTPS
	Listen   string             // address; 127.0.0.1:0 when empty
}

// Proxy is one that runs, until its test's end.
type Proxy struct {
	Host string // "127.0.0.1:port"
	URL  string
	CA   string // path of the registry's authority, "" without TLS

	target   string
	handler  http.Handler
	server   *httptest.Server
	client   *http.Client
	stop     context.CancelFunc
	stopping context.Context
	mu       sync.Mutex
	on       func(*Request) *Fault
	requests []*Request
	seen     map[string]int
}

// Start runs a proxy that does no harm yet.
func Start(t testing.TB, o Options) *Proxy {
	t.Helper()
	p := &Proxy{target: o.Target, handler: o.Handler, seen: map[string]int{}}
	p.stopping, p.stop = context.WithCancel(context.Background())
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	p.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var serving *tls.Config
	if o.Registry != nil {
		p.target = o.Registry.URL
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // this is not what is tested
		if !o.Plain {
			serving, p.CA = o.Registry.ServerTLS(), o.Registry.CA
		}
	}
	address := o.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Minute}}
	if p.server.TLS = serving; serving != nil {
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	p.URL = p.server.URL
	p.Host = l.Addr().String()
	t.Cleanup(func() {
		p.stop()
		p.server.CloseClientConnections()
		p.server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// On sets what decides over the requests from now on; nil, or a Fault of nil,
// is no harm. It is called for one request at a time.
func (p *Proxy) On(decide func(*Request) *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = decide
}

// Forget empties the record, and begins to count the requests anew.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
	clear(p.seen)
}

// Requests lists those that match so far, in the order of arrival; all with nil.
func (p *Proxy) Requests(match func(*Request) bool) []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Request
	for _, r := range p.requests {
		if match == nil || match(r) {
			list = append(list, *r)
		}
	}
	return list
}

// Count is the number of requests that match.
func (p *Proxy) Count(match func(*Request) bool) int { return len(p.Requests(match)) }

// Sent adds up the bytes of the answers to the requests that match.
func (p *Proxy) Sent(match func(*Request) bool) (total int64) {
	for _, r := range p.Requests(match) {
		total += r.Sent
	}
	return total
}

// Blobs matches the fetching of blobs: of those given, or of all without any.
func Blobs(digests ...string) func(*Request) bool {
	return func(r *Request) bool {
		b := r.Blob()
		return r.Method == http.MethodGet && b != "" && (len(digests) == 0 || slices.Contains(digests, b))
	}
}

// Path matches requests whose path has the part.
func Path(method, part string) func(*Request) bool {
	return func(r *Request) bool { return r.Method == method && strings.Contains(r.Path, part) }
}

// First does the fault to the first k requests of each method and path that
// match.
func First(k int, match func(*Request) bool, f Fault) func(*Request) *Fault {
	return func(r *Request) *Fault {
		if r.Nth < k && match(r) {
			return &f
		}
		return nil
	}
}

// Always does the fault to all requests that match.
func Always(match func(*Request) bool, f Fault) func(*Request) *Fault {
	return First(1<<62, match, f)
}

func (p *Proxy) record(r *http.Request) (*Request, Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := r.Method + " " + r.URL.Path
	rec := &Request{Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.Query(), Range: r.Header.Get("Range"),
		Header: r.Header.Clone(), Nth: p.seen[key]}
	p.seen[key]++
	p.requests = append(p.requests, rec)
	if p.on != nil {
		if f := p.on(rec); f != nil {
			return rec, *f
		}
	}
	return rec, Fault{}
}

func (p *Proxy) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	rec, f := p.record(r)
	defer p.update(func() { rec.Done = true })
	select {
	case <-time.After(f.Delay):
	case <-p.stopping.Done():
		return
	}
	if f.Wait != nil {
		select {
		case <-f.Wait:
		case <-p.stopping.Done():
		case <-r.Context().Done():
		}
	}
	res, err := p.answer(r, rec, &f)
	if errors.Is(err, errCut) || f.Swallow {
		p.breakOff(w, &f)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	p.send(w, r, res, rec, &f)
}

var errCut = errors.New("the upload was cut")

// upload counts the request's body and ends with errCut where it is told to.
type upload struct {
	io.Reader
	left  int64
	cut   bool
	count func(int)
}

func (u *upload) Read(b []byte) (int, error) {
	if u.cut {
		if u.left == 0 {
			return 0, errCut
		}
		b = b[:min(int64(len(b)), u.left)]
	}
	n, err := u.Reader.Read(b)
	u.left -= int64(n)
	u.count(n)
	return n, err
}

// answer has the request answered: by the fault, by the handler or by the
// registry.
func (p *Proxy) answer(r *http.Request, rec *Request, f *Fault) (*http.Response, error) {
	if f.Redirect != "" {
		f.Header = maps.Clone(f.Header)
		if f.Header == nil {
			f.Header = http.Header{}
		}
		f.Header.Set("Location", f.Redirect)
		f.Status = http.StatusTemporaryRedirect
	}
	if f.Status != 0 {
		return &http.Response{StatusCode: f.Status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(f.Body)),
			ContentLength: int64(len(f.Body))}, nil
	}
	body := &upload{r.Body, f.UploadTo, f.CutUpload, func(n int) { p.update(func() { rec.Received += int64(n) }) }}
	if f.IgnoreRange {
		r.Header.Del("Range")
	}
	if p.handler != nil {
		r.Body = io.NopCloser(body)
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, r)
		return w.Result(), nil
	}
	out, err := http.NewRequestWithContext(r.Context(), r.Method, p.target+r.URL.RequestURI(), body)
	if err != nil {
		return nil, err
	}
	out.Header, out.Host, out.ContentLength = r.Header.Clone(), r.Host, r.ContentLength
	if r.ContentLength == 0 {
		out.Body = nil
	}
	if p.CA != "" {
		out.Header.Set("X-Forwarded-Proto", "https")
	} else {
		out.Header.Set("X-Forwarded-Proto", "http")
	}
	return p.client.Do(out)
}

// breakOff ends the connection; it does not return.
func (p *Proxy) breakOff(w http.ResponseWriter, f *Fault) {
	if f.Reset {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
			c.Close()
		}
	}
	panic(http.ErrAbortHandler)
}

// send writes the answer, with what the fault does to it.
func (p *Proxy) send(w http.ResponseWriter, r *http.Request, res *http.Response, rec *Request, f *Fault) {
	h := w.Header()
	maps.Copy(h, res.Header)
	length := res.ContentLength
	if length >= 0 && h.Get("Content-Length") == "" && r.Method != http.MethodHead {
		h.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	status := res.StatusCode
	if f.Ranged && status == http.StatusOK {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", length-1, length))
	}
	if f.Length != 0 {
		h.Set("Content-Length", strconv.FormatInt(f.Length, 10))
	}
	if f.Chunked || f.Endless != 0 {
		h.Del("Content-Length")
	}
	for name, values := range f.Header {
		if h[http.CanonicalHeaderKey(name)] = values; len(values) == 0 || values[0] == "" {
			h.Del(name)
		}
	}
	w.WriteHeader(status)
	_ = http.NewResponseController(w).Flush()
	p.update(func() { rec.Status = status })
	if f.BeforeBody != nil {
		f.BeforeBody(rec)
	}
	if f.Length != 0 { // net/http would not let the body be longer than it was said to be
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			n, _ := io.Copy(c, res.Body)
			c.Close()
			p.update(func() { rec.Sent = n })
		}
		return
	}
	p.stream(w, r, res.Body, rec, f)
}

func (p *Proxy) stream(w http.ResponseWriter, r *http.Request, body io.Reader, rec *Request, f *Fault) {
	buffer := make([]byte, 32<<10)
	var sent int64
	for {
		limit := int64(len(buffer))
		if f.Cut || f.Stall {
			limit = min(limit, f.CutAfter-sent)
		}
		if f.Rate > 0 {
			limit = min(limit, max(1, f.Rate/50))
		}
		if limit <= 0 {
			if f.Stall {
				select {
				case <-r.Context().Done():
				case <-p.stopping.Done():
				}
			}
			p.breakOff(w, f)
		}
		n, err := body.Read(buffer[:limit])
		if i := f.CorruptAt - sent; f.Corrupt && i >= 0 && i < int64(n) {
			buffer[i] ^= 0xff
		}
		if _, werr := w.Write(buffer[:n]); werr != nil {
			panic(http.ErrAbortHandler)
		}
		sent += int64(n)
		p.update(func() { rec.Sent = sent })
		if f.Cut || f.Rate > 0 || f.Stall {
			_ = http.NewResponseController(w).Flush()
		}
		if f.Rate > 0 {
			select {
			case <-time.After(time.Duration(int64(n) * int64(time.Second) / f.Rate)):
			case <-p.stopping.Done():
				panic(http.ErrAbortHandler)
			}
		}
		if err == nil {
			continue
		}
		if f.Endless != 0 {
			body, f.Endless, err = repeated(f.Endless), 0, nil
			continue
		}
		if err != io.EOF {
			panic(http.ErrAbortHandler)
		}
		return
	}
}

// repeated reads as the byte, for ever.
type repeated byte

func (b repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}
