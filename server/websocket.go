package server

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/websocket"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/fault"
)

// websocket is hijack for a client that speaks the websocket protocol, RFC 6455. What
// is wrong with its handshake is told by the protocol's own answer, which is the head.
func (t *takeover) websocket(bool) (conn net.Conn, head, buffered []byte, err error) {
	if t.taken {
		return nil, nil, nil, errors.New("the connection was given away before")
	}
	if !strings.EqualFold(t.r.Header.Get("Upgrade"), "websocket") {
		return nil, nil, nil, fault.New(fault.Invalid, "attach/ws is for websockets, use attach instead: the request asks for no upgrade to one")
	}
	taken, rw, err := http.NewResponseController(t.w).Hijack()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("the connection cannot become a websocket: %w", err)
	}
	t.taken = true
	s := &socket{ended: make(chan struct{})}
	made := make(chan *websocket.Conn)
	go func() {
		defer close(made)
		server := websocket.Server{Handler: func(c *websocket.Conn) {
			made <- c
			<-s.ended // the connection is closed when the handler returns
		}}
		server.ServeHTTP(hijacked{t.w, taken, rw}, t.r.Request)
	}()
	if s.Conn = <-made; s.Conn == nil {
		return nil, nil, nil, errors.New("the websocket's handshake is wrong")
	}
	s.PayloadType = t.r.version.SocketPayload()
	return s, nil, nil, nil
}

var _ container.Hijack = (*takeover)(nil).websocket

// hijacked gives the connection to who takes it by that method.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
	rw   *bufio.ReadWriter
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, h.rw, nil }

// socket is a websocket as a connection: each writing is a message, and reading
// gives what is in the client's.
type socket struct {
	*websocket.Conn
	once  sync.Once
	ended chan struct{}
}

// Close says goodbye and closes the connection.
func (s *socket) Close() (err error) {
	s.once.Do(func() {
		err = s.Conn.Close()
		close(s.ended)
	})
	return err
}
