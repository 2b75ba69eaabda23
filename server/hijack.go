package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/moby/moby/api/types"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/fault"
)

// maxSkipped bounds a body that nobody reads, in bytes.
const maxSkipped = 64 << 10

// skipBody reads past the body of a request that becomes a stream: some
// clients say in it again what the query says, and it is no input for the container.
func (r *request) skipBody() error {
	if r.ContentLength <= 0 {
		return nil
	}
	if r.ContentLength > maxSkipped {
		return fault.New(fault.Invalid, "the request has a body of %d bytes: send input when the stream has begun", r.ContentLength)
	}
	_, err := io.Copy(io.Discard, r.Body)
	return err
}

// takeover lets a handler leave HTTP for a raw stream. Nothing is written
// before hijack is called: until then an error can still be an HTTP answer.
// After it the connection belongs to who called, and the server forgets it.
type takeover struct {
	w     http.ResponseWriter
	r     *request
	taken bool
	exec  string // told in a header of the answer; "" for none
}

// hijack gives the connection away, with the head of the answer that is to be
// written to it and what the client had sent beyond the request: 101 for a client
// that asked for an upgrade, 200 for one of the old kind that just begins to talk.
// The connection is a *net.UnixConn, *net.TCPConn or *tls.Conn without deadlines.
// It is a container.Hijack.
func (t *takeover) hijack(tty bool) (conn net.Conn, head, buffered []byte, err error) {
	if t.taken {
		return nil, nil, nil, errors.New("the connection was given away before")
	}
	conn, rw, err := http.NewResponseController(t.w).Hijack()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("the connection cannot become a stream: %w", err)
	}
	t.taken = true
	if n := rw.Reader.Buffered(); n > 0 {
		buffered = make([]byte, n)
		if _, err := io.ReadFull(rw.Reader, buffered); err != nil {
			conn.Close()
			return nil, nil, nil, err
		}
	}
	text := "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n"
	if _, upgrade := t.r.Header["Upgrade"]; upgrade {
		text = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + t.r.version.StreamType(tty) + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	}
	for _, name := range []string{"Api-Version", "Docker-Experimental", "Ostype", "Server"} {
		text += name + ": " + t.w.Header().Get(name) + "\r\n"
	}
	if t.exec != "" {
		text += "Exec-Id: " + t.exec + "\r\n"
	}
	return conn, []byte(text + "\r\n"), buffered, nil
}

var _ container.Hijack = (*takeover)(nil).hijack
