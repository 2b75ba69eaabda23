// Package dbus speaks with systemd and firewalld by the D-Bus protocol, version 1:
// method calls with the few types that they need, their replies, and signals, on the
// bus or on the socket that systemd itself listens on. One goroutine uses a
// connection at a time. See https://dbus.freedesktop.org/doc/dbus-specification.html.
package dbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection.
type Conn struct {
	fd     int
	serial uint32
	direct bool       // there is no bus between
	kept   []*message // signals that nobody has waited for yet
}

// Error is what a peer answers to a call that it refuses.
type Error struct{ Name, Text string }

func (e *Error) Error() string {
	if e.Text == "" {
		return e.Name
	}
	return e.Text
}

// patience is how long a peer may be silent.
const patience = 30 * time.Second

// Direct connects to a peer's own socket, Bus to one on a bus.
func Direct(socket string) (*Conn, error) { return dial(socket, true) }

// Bus connects to a bus.
func Bus(socket string) (*Conn, error) {
	c, err := dial(socket, false)
	if err != nil {
		return nil, err
	}
	if _, err := c.Call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func dial(socket string, direct bool) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &Conn{fd: fd, direct: direct}
	c.listen(patience)
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
		err = c.authenticate()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return c, nil
}

// listen sets how long reading waits.
func (c *Conn) listen(d time.Duration) {
	tv := unix.NsecToTimeval(d.Nanoseconds())
	_ = unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// Close ends the connection.
func (c *Conn) Close() { unix.Close(c.fd) }

// Hangup ends what goes on on the connection, for another goroutine than the one
// that uses it, which is still to close it.
func (c *Conn) Hangup() { _ = unix.Shutdown(c.fd, unix.SHUT_RDWR) }

// Direct tells that the peer is the one that was dialled, not a bus.
func (c *Conn) Direct() bool { return c.direct }

// authenticate lets the kernel tell who we are: we claim nothing, for what we
// are called in our user namespace means nothing outside.
func (c *Conn) authenticate() error {
	if err := c.write([]byte("\x00AUTH EXTERNAL\r\n")); err != nil {
		return err
	}
	line, err := c.line()
	if err == nil && strings.HasPrefix(line, "DATA") {
		if err = c.write([]byte("DATA\r\n")); err == nil {
			line, err = c.line()
		}
	}
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK") {
		return fmt.Errorf("it does not let this user in: %s", line)
	}
	return c.write([]byte("BEGIN\r\n"))
}

// line reads one line of the greeting, byte by byte: messages follow it.
func (c *Conn) line() (string, error) {
	var b []byte
	for len(b) < 1024 {
		var one [1]byte
		if err := c.read(one[:]); err != nil {
			return "", err
		}
		if b = append(b, one[0]); one[0] == '\n' {
			return strings.TrimRight(string(b), "\r\n"), nil
		}
	}
	return "", errMessage
}

func (c *Conn) write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return said(err)
		}
		b = b[n:]
	}
	return nil
}

func (c *Conn) read(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(c.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return said(err)
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

func said(err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return errSilent
	}
	return err
}

var errSilent = errors.New("the peer does not answer in time")

func (c *Conn) receive() (*message, error) {
	var head [16]byte
	if err := c.read(head[:]); err != nil {
		return nil, err
	}
	order, fields, body, err := lengths(head[:])
	if err != nil {
		return nil, err
	}
	rest := make([]byte, fields+body)
	if err := c.read(rest); err != nil {
		return nil, err
	}
	m, err := decode(head[:], rest, order, fields)
	if err == nil {
		m.little = order == binary.LittleEndian
	}
	return m, err
}

// Call calls a method and gives the strings and paths that the answer begins
// with; those in a variant too.
func (c *Conn) Call(destination string, path Path, iface, member string, args ...any) ([]string, error) {
	c.serial++
	serial := c.serial
	if c.direct {
		destination = ""
	}
	b, err := encodeCall(serial, destination, path, iface, member, args)
	if err == nil {
		err = c.write(b)
	}
	for err == nil {
		var m *message
		if m, err = c.receive(); err != nil {
			break
		}
		switch {
		case m.kind == signal:
			c.kept = append(c.kept, m)
		case m.replyTo != serial:
		case m.kind == methodReturn:
			return m.texts(), nil
		case m.kind == methodError:
			e := &Error{Name: m.failure}
			if t := m.texts(); len(t) > 0 {
				e.Text = t[0]
			}
			return nil, e
		}
	}
	return nil, fmt.Errorf("%s: %w", member, err)
}

// Await waits, at most that long, for a signal with that name for which wanted,
// of its strings and paths, is true.
func (c *Conn) Await(timeout time.Duration, member string, wanted func([]string) bool) error {
	deadline := time.Now().Add(timeout)
	c.listen(timeout)
	defer c.listen(patience)
	for time.Now().Before(deadline) {
		var m *message
		if len(c.kept) > 0 {
			m, c.kept = c.kept[0], c.kept[1:]
		} else {
			var err error
			if m, err = c.receive(); err != nil {
				return fmt.Errorf("wait for %s: %w", member, err)
			}
		}
		if m.kind == signal && m.member == member && wanted(m.texts()) {
			return nil
		}
	}
	return fmt.Errorf("wait for %s: %w", member, errSilent)
}

// Signal waits for the next signal, without an end, and gives its name and its
// strings and paths.
func (c *Conn) Signal() (member string, texts []string, err error) {
	c.listen(0)
	defer c.listen(patience)
	for {
		var m *message
		if len(c.kept) > 0 {
			m, c.kept = c.kept[0], c.kept[1:]
		} else if m, err = c.receive(); err != nil {
			return "", nil, fmt.Errorf("wait for a signal: %w", err)
		}
		if m.kind == signal {
			return m.member, m.texts(), nil
		}
	}
}

// texts are the strings and paths of a message's body, up to the first value of
// another kind but numbers.
func (m *message) texts() (out []string) {
	d := &decoder{order: binary.BigEndian, b: m.body}
	if m.little {
		d.order = binary.LittleEndian
	}
	types := m.signature
	for i := 0; i < len(types) && !d.bad; i++ {
		switch types[i] {
		case 's', 'o':
			out = append(out, d.str())
		case 'u', 'i':
			d.u32()
		case 'v':
			types = types[:i+1] + d.sig() + types[i+1:]
		default:
			return out
		}
	}
	return out
}
