package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/build"

	"github.com/tarehq/tare/server/version"
)

// Builder takes the connections of those who want something built; what serves
// them is a process of its own. launch.Builder is it.
type Builder interface {
	// Ready starts the process unless it runs.
	Ready() error
	// Serve takes the connection, with what was read of it. It returns when it is
	// done with it.
	Serve(conn net.Conn, read []byte) error
	// Usage tells what the cache takes; Prune makes it smaller, as a request's query
	// says whose filters are known.
	Usage(ctx context.Context) (*build.DiskUsage, error)
	Prune(ctx context.Context, query url.Values) (*build.CachePruneReport, error)
}

type buildHandlers struct {
	builder Builder
	log     *slog.Logger
}

func (h *buildHandlers) routes() []route {
	return []route{
		{method: "POST", pattern: "/build", handle: h.hand},
		{method: "POST", pattern: "/build/cancel", handle: h.hand},
		{method: "POST", pattern: "/session", handle: h.hand},
		{method: "POST", pattern: "/grpc", handle: h.hand},
	}
}

// HeaderVersion tells the process that builds which version of the API a client
// speaks.
const HeaderVersion = "Tare-Api-Version"

// hand gives the connection to the builder, with the request's head as it would
// have read it, but for the version, which goes into a header. What else the
// client asks for is asked on another connection.
func (h *buildHandlers) hand(w http.ResponseWriter, r *request) error {
	_, path, err := version.Cut(r.URL.Path)
	if err != nil {
		return err
	}
	head := r.Header.Clone()
	for _, name := range []string{HeaderVersion, "Transfer-Encoding", "Content-Length", "Host"} {
		head.Del(name)
	}
	head.Set(HeaderVersion, r.version.String())
	for _, coding := range r.TransferEncoding {
		head.Add("Transfer-Encoding", coding)
	}
	if r.ContentLength > 0 || r.ContentLength == 0 && len(r.TransferEncoding) == 0 {
		head.Set("Content-Length", fmt.Sprint(r.ContentLength))
	}
	if r.Header.Get("Upgrade") == "" {
		head.Set("Connection", "close")
	}
	var text bytes.Buffer
	target := path
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: tared\r\n", r.Method, target)
	if err := head.Write(&text); err != nil {
		return err
	}
	text.WriteString("\r\n")
	return h.give(w, text.Bytes())
}

// preface is what a connection begins with that speaks HTTP/2 without being
// asked, as far as net/http reads it (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\n"

// http2 gives a connection that speaks gRPC to the builder.
func (h *buildHandlers) http2(w http.ResponseWriter) error { return h.give(w, []byte(preface)) }

// give hands the connection over, with read before what the server has read
// ahead.
func (h *buildHandlers) give(w http.ResponseWriter, read []byte) error {
	if err := h.builder.Ready(); err != nil {
		return err
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("the connection cannot be given to the process that builds: %w", err)
	}
	if n := rw.Reader.Buffered(); n > 0 {
		ahead := make([]byte, n)
		if _, err := io.ReadFull(rw.Reader, ahead); err != nil {
			conn.Close()
			return nil // nobody is there to be told
		}
		read = append(read, ahead...)
	}
	if err := h.builder.Serve(conn, read); err != nil { // it was the answer's to say so
		h.log.Error("a build was lost", "error", err)
	}
	return nil
}
