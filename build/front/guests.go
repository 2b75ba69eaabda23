package front

import (
	"errors"
	"net"
	"sync"
	"time"
)

// idleness ends the serving when nobody has been there for a while. Who is there
// is counted by connections, also those that were taken out of HTTP.
type idleness struct {
	after time.Duration
	end   func()

	mu    sync.Mutex
	there int
	timer *time.Timer
}

func newIdleness(after time.Duration, end func()) *idleness {
	i := &idleness{after: after, end: end}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.timer = time.AfterFunc(after, i.expire)
	return i
}

func (i *idleness) expire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.there == 0 {
		i.end()
	}
}

func (i *idleness) came() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.there++
}

func (i *idleness) left() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.there--
	i.timer.Reset(i.after)
}

// guests is a listener whose connections are counted.
type guests struct {
	net.Listener
	idle *idleness
}

func (g guests) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.idle.came()
	return &guest{Conn: conn, left: sync.OnceFunc(g.idle.left)}, nil
}

// guest is a connection until it is closed.
type guest struct {
	net.Conn
	left func()
}

func (g *guest) Close() error {
	err := g.Conn.Close()
	g.left()
	return err
}

// CloseWrite ends one direction.
func (g *guest) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// handed is a listener that accepts what is given to it.
type handed struct {
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func newHanded() *handed { return &handed{conns: make(chan net.Conn), over: make(chan struct{})} }

// give has the connection accepted. It is closed when nobody accepts any more.
func (h *handed) give(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.over:
		conn.Close()
	}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.over:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.over) })
	return nil
}

func (h *handed) Addr() net.Addr { return &net.UnixAddr{Name: "handed", Net: "unix"} }
