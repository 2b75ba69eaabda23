// Package access notes every request: who asked for what, and what came of it.
//
// Handler stands before all others. It settles who the client is, gives the
// request an ID, and tells its observers, such as a Log, when it has ended.
// The writer that it hands on has the kernel send files, as net/http's does.
package access

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tarehq/tare/registry"
)

// Record is a request that has ended. There is nothing of its headers and its
// query in it but what is named here: those may carry secrets.
type Record struct {
	Time         time.Time
	Took         time.Duration
	Method, Path string
	Noun         string // of registry.Noun
	Status       int
	In, Out      int64 // bytes of the bodies
	Remote       string
	Agent        string
	ID           string
	Early        bool // the client went away, or the handler gave up half-way
	registry.Outcome
}

// Config says whom to believe and whom to tell.
type Config struct {
	// Proxies are the addresses whose X-Forwarded-For counts.
	Proxies []netip.Prefix
	// Observers are told of each request. They must not wait.
	Observers []func(*Record)
}

// Handler has next answer. The request that it sees has the client's address as
// RemoteAddr and an X-Request-Id.
func Handler(next http.Handler, c Config) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		r.RemoteAddr = c.client(r)
		id := requestID(r)
		w.Header()["X-Request-Id"] = id
		rec := &recorder{ResponseWriter: w}
		var in *counter
		if r.Body != nil && r.Body != http.NoBody {
			in = &counter{ReadCloser: r.Body}
			r.Body = in
		}
		path, returned := r.URL.Path, false
		defer func() {
			took := time.Since(start)
			rec.Time, rec.Took, rec.ID, rec.Remote = start, took, id[0], r.RemoteAddr
			rec.Method, rec.Path, rec.Noun, rec.Agent = r.Method, path, registry.Noun(path), r.UserAgent()
			rec.Early = !returned || r.Context().Err() != nil
			if in != nil {
				rec.In = in.n.Load()
			}
			if rec.Status == 0 {
				rec.Status = http.StatusOK
			}
			for _, observe := range c.Observers {
				observe(&rec.Record)
			}
		}()
		next.ServeHTTP(rec, r)
		returned = true
	})
}

// requestID gives the request's own ID, where it is one that can be logged, or
// else makes one.
func requestID(r *http.Request) []string {
	if given := r.Header["X-Request-Id"]; len(given) == 1 && sane(given[0]) {
		return given
	}
	const hex = "0123456789abcdef"
	var id [16]byte
	for i, n := 0, rand.Uint64(); i < len(id); i, n = i+1, n>>4 {
		id[i] = hex[n&15]
	}
	made := []string{string(id[:])}
	r.Header["X-Request-Id"] = made
	return made
}

func sane(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.:/+=", c) >= 0) {
			return false
		}
	}
	return id != "" && len(id) <= 128
}

// client is the address that the request comes from. A proxy appends the
// address it sees to X-Forwarded-For, so the last one that is no proxy counts;
// what stands before it, the client may have made up.
func (c *Config) client(r *http.Request) string {
	if len(c.Proxies) == 0 {
		return r.RemoteAddr
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !c.proxy(peer.Addr()) {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	client := peer
	for i := len(hops) - 1; i >= 0; i-- {
		hop, ok := address(strings.TrimSpace(hops[i]))
		if !ok {
			break
		}
		if client = hop; !c.proxy(hop.Addr()) {
			break
		}
	}
	return client.String()
}

// address reads an address that a proxy wrote, with or without a port.
func address(s string) (netip.AddrPort, bool) {
	if at, err := netip.ParseAddrPort(s); err == nil {
		return at, true
	}
	at, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return netip.AddrPortFrom(at, 0), err == nil
}

func (c *Config) proxy(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range c.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// counter counts what is read of a body.
type counter struct {
	io.ReadCloser
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// recorder notes what is answered.
type recorder struct {
	http.ResponseWriter
	Record
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Report is registry.Reporter's.
func (r *recorder) Report(o registry.Outcome) { r.Outcome = o }

func (r *recorder) WriteHeader(status int) {
	if r.Status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.Out += int64(n)
	return n, err
}

// ReadFrom is io.ReaderFrom's. The source stays as it is: the kernel sends from
// a file that is seen as such.
func (r *recorder) ReadFrom(src io.Reader) (n int64, err error) {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	if to, ok := r.ResponseWriter.(io.ReaderFrom); ok {
		n, err = to.ReadFrom(src)
	} else {
		n, err = io.Copy(struct{ io.Writer }{r.ResponseWriter}, src)
	}
	r.Out += n
	return n, err
}

// host is the address without its port.
func host(remote string) string {
	if h, port, err := net.SplitHostPort(remote); err == nil && port == "0" {
		return h
	}
	return remote
}
