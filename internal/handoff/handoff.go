// Package handoff gives an open connection, with what was read of it already,
// to another process of this machine, which goes on as if it had accepted it.
//
// Each connection passes through one of its own to the receiver's unix socket:
// the length of what was read, four bytes, big-endian, together with the
// descriptor (SCM_RIGHTS, unix(7)), then those bytes.
package handoff

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MaxRead bounds what may have been read of a connection, in bytes.
const MaxRead = 4 << 20

// patience bounds the giving away, which waits for nobody but the receiver.
const patience = 10 * time.Second

// Send gives conn to the process that listens at path, which first reads the
// bytes read. The caller's conn is closed then; after an error it is open and as
// it was. What is no plain socket, such as a connection with TLS, is relayed until
// both sides have ended; wait returns then, and at once otherwise.
func Send(path string, conn net.Conn, read []byte) (wait func(), err error) {
	wait = func() {}
	file, relay, err := descriptor(conn)
	if err != nil {
		return wait, err
	}
	defer file.Close()
	if err := send(path, file, read); err != nil {
		if relay != nil {
			relay.Close()
		}
		return wait, fmt.Errorf("hand a connection over: %w", err)
	}
	if relay == nil {
		return wait, conn.Close()
	}
	return pass(conn, relay), nil
}

// descriptor returns what can be sent: the connection's own descriptor, or one
// end of a pair of sockets whose other end is to be relayed.
func descriptor(conn net.Conn) (file *os.File, relay net.Conn, err error) {
	if c, ok := conn.(interface{ File() (*os.File, error) }); ok {
		file, err = c.File()
		return file, nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	file, own := os.NewFile(uintptr(pair[0]), "relay"), os.NewFile(uintptr(pair[1]), "relay")
	defer own.Close()
	if relay, err = net.FileConn(own); err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, relay, nil
}

func send(path string, file *os.File, read []byte) error {
	if len(read) > MaxRead {
		return fmt.Errorf("%d bytes were read of it, and at most %d may be", len(read), MaxRead)
	}
	c, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	length := binary.BigEndian.AppendUint32(nil, uint32(len(read)))
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix(length, unix.UnixRights(int(file.Fd())), nil); err != nil {
		return err
	}
	if len(read) > 0 { // who waits for nothing may be done with it, and even an empty write would fail
		if _, err := c.Write(read); err != nil {
			return err
		}
	}
	var ack [1]byte // the receiver has it: it may end now without the connection being lost
	_, err = io.ReadFull(c, ack[:])
	return err
}

// pass relays between two connections until both directions have ended.
func pass(a, b net.Conn) (wait func()) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(way[1], way[0])
			if half, ok := way[1].(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
				return
			}
			a.Close()
			b.Close()
		})
	}
	return func() {
		both.Wait()
		a.Close()
		b.Close()
	}
}

// Listener accepts what is handed over. It is a net.Listener.
type Listener struct{ l *net.UnixListener }

// Receive accepts at a unix socket what is handed over there.
func Receive(l *net.UnixListener) *Listener { return &Listener{l} }

// Accept returns the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		conn, err := receive(c)
		c.Close()
		if err == nil {
			return conn, nil
		} // who sent it went away, or is none of ours
	}
}

func receive(c *net.UnixConn) (net.Conn, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	length, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(length, oob)
	if err != nil {
		return nil, err
	}
	file, err := received(oob[:oobn])
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size := binary.BigEndian.Uint32(length)
	if n != 4 || size > MaxRead {
		return nil, errors.New("not a connection")
	}
	read := make([]byte, size)
	if _, err := io.ReadFull(c, read); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{0}); err != nil {
		conn.Close()
		return nil, err
	}
	return &resumed{Conn: conn, read: read}, nil
}

func received(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, errors.New("no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("no descriptor came")
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "connection"), nil
}

// Close ends the listening.
func (l *Listener) Close() error { return l.l.Close() }

// Addr is the socket's path.
func (l *Listener) Addr() net.Addr { return l.l.Addr() }

// resumed gives what was read before once more.
type resumed struct {
	net.Conn
	mu   sync.Mutex
	read []byte
}

func (r *resumed) Read(p []byte) (int, error) {
	r.mu.Lock()
	if len(r.read) == 0 {
		r.mu.Unlock()
		return r.Conn.Read(p)
	}
	defer r.mu.Unlock()
	n := copy(p, r.read)
	if r.read = r.read[n:]; len(r.read) == 0 {
		r.read = nil
	}
	return n, nil
}

// CloseWrite ends one direction.
func (r *resumed) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
