package driver

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/logs"
)

// Message is one record of a log on its way.
type Message struct {
	Stream  logs.Stream
	Time    time.Time
	Line    []byte // without its newline
	Partial *Partial
}

// Partial says which part of a line a message is.
type Partial struct {
	ID      string
	Ordinal int // from 1
	Last    bool
}

// Receiver is where a container's log goes.
type Receiver struct {
	dial func(ctx context.Context) (net.Conn, error)
	// format appends a message in its form on the wire.
	format func(b []byte, m *Message) []byte
	// send writes one datagram; nil where the wire is a stream.
	send func(c net.Conn, datagram []byte) error
	// confirm waits until the receiver has acknowledged as many messages; nil
	// where it does not.
	confirm func(c net.Conn, messages int) error
	// sure says that what was written without an error has arrived.
	sure bool

	// Wait is what passes between the first attempts to reach it, and Renew after
	// which time a new connection is made. Zero leaves it to the caller.
	Wait, Renew time.Duration
}

// NewReceiver makes the receiver of a remote driver from options that have
// passed Check.
func NewReceiver(name string, info Info) (*Receiver, error) {
	k := kinds[name]
	if k.remote == nil {
		return nil, fmt.Errorf("the log driver %q sends nothing", name)
	}
	return k.remote(info.Config, info)
}

// Conn is a connection to a receiver.
type Conn struct {
	r      *Receiver
	c      net.Conn
	buf    []byte
	broken chan struct{}
}

// Dial connects. The connection is broken once ctx has ended.
func (r *Receiver) Dial(ctx context.Context) (*Conn, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := &Conn{r: r, c: c, broken: make(chan struct{})}
	if r.confirm == nil {
		go conn.watch()
	}
	return conn, nil
}

// watch notices at once when the other side is gone: such receivers never say
// a word. A datagram that nobody took is told here too, udp(7).
func (c *Conn) watch() {
	defer close(c.broken)
	_, _ = io.Copy(io.Discard, c.c)
}

// Broken is closed when nothing that is sent will arrive any more.
func (c *Conn) Broken() <-chan struct{} { return c.broken }

// Send writes messages in their order. With an error some of them may have
// arrived.
func (c *Conn) Send(list []Message) error {
	c.buf = c.buf[:0]
	for i := range list {
		c.buf = c.r.format(c.buf, &list[i])
		if c.r.send == nil {
			continue
		}
		if err := c.r.send(c.c, c.buf); err != nil {
			return err
		}
		c.buf = c.buf[:0]
	}
	if len(c.buf) > 0 {
		if _, err := c.c.Write(c.buf); err != nil {
			return err
		}
	}
	if c.r.confirm != nil {
		return c.r.confirm(c.c, len(list))
	}
	return nil
}

// Sure tells whether what Send has returned for has arrived; otherwise time has
// to show (Settled).
func (c *Conn) Sure() bool { return c.r.sure }

// Settled tells whether the kernel has passed on all that was sent, and the
// other side is there.
func (c *Conn) Settled() bool {
	select {
	case <-c.broken:
		return false
	default:
	}
	inner := c.c
	if t, ok := inner.(interface{ NetConn() net.Conn }); ok { // TLS
		inner = t.NetConn()
	}
	s, ok := inner.(syscall.Conn)
	if !ok {
		return true
	}
	rc, err := s.SyscallConn()
	if err != nil {
		return false
	}
	left := 0 // bytes that the other side's kernel has not acknowledged
	cerr := rc.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return cerr == nil && err == nil && left == 0
}

// Close closes the connection.
func (c *Conn) Close() error {
	err := c.c.Close()
	if c.r.confirm == nil {
		<-c.broken
	}
	return err
}
