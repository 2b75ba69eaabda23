// Package stream is a client's end of a container's streams: its socket, which goes
// to the process beside the container, and the keys by which it leaves.
package stream

import (
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Client is a client's socket on its way to another process: the socket
// itself where the kernel has it, or for TLS one end of a pair whose other end
// is copied to and from the client.
type Client struct {
	File   *os.File
	copied chan struct{} // closed when the copying is over; nil without
	head   []byte        // to be written yet
	ready  bool          // the head was read, or waited for long enough
}

// headGrace bounds the wait for a client to read the head. One that is there reads
// it as soon as it comes to run, which on a busy machine takes a while; the bound
// is for one that sends and never reads.
const headGrace = 5 * time.Second

// letRead waits until the client has read the head of the answer. Some clients
// (Docker's SDK for Python is one) read it through a buffer and what follows
// past that buffer: the first output of a quick process would be lost there, if
// it were in the socket with the head. A client that attaches before the start
// needs no wait, as it has read the head before it asks for the start.
func (c *Client) letRead() {
	if c.ready {
		return
	}
	c.ready = true
	raw, err := c.File.SyscallConn()
	if err != nil {
		return
	}
	pause := 20 * time.Microsecond
	for deadline := time.Now().Add(headGrace); ; time.Sleep(pause) {
		unread := 0 // bytes that the other end of a unix(7) socket has not taken
		cerr := raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if cerr != nil || err != nil || unread == 0 || time.Now().After(deadline) || c.Gone() {
			return
		}
		pause = min(pause*11/10, time.Millisecond)
	}
}

// Greet writes the head, once.
func (c *Client) Greet() error {
	head := c.head
	c.head = nil
	if head == nil {
		return nil
	}
	_, err := c.File.Write(head)
	return err
}

// Greeted tells whether the head was written.
func (c *Client) Greeted() bool { return c.head == nil }

// Welcome writes the head and lets the client read it.
func (c *Client) Welcome() error {
	err := c.Greet()
	c.letRead()
	return err
}

// Write writes to the client.
func (c *Client) Write(p []byte) (int, error) {
	if err := c.Welcome(); err != nil {
		return 0, err
	}
	return c.File.Write(p)
}

// Hand takes the connection over; conn is closed, or copied from, after it.
func Hand(conn net.Conn, head []byte) (*Client, error) {
	if s, ok := conn.(interface{ File() (*os.File, error) }); ok {
		f, err := s.File()
		conn.Close()
		return &Client{File: f, head: head}, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	ours := os.NewFile(uintptr(pair[0]), "client")
	near, err := net.FileConn(ours)
	ours.Close()
	theirs := os.NewFile(uintptr(pair[1]), "client")
	if err != nil {
		conn.Close()
		theirs.Close()
		return nil, err
	}
	c := &Client{File: theirs, head: head, copied: make(chan struct{})}
	go c.relay(near, conn)
	return c, nil
}

// relay copies both ways until the container's side has ended, or a client without
// CloseWrite has: that cannot end its input and go on to read.
func (c *Client) relay(near, client net.Conn) {
	defer close(c.copied)
	defer client.Close()
	defer near.Close()
	go func() {
		_, _ = io.Copy(near, client)
		if _, half := client.(interface{ CloseWrite() error }); !half {
			near.Close()
		}
		if s, ok := near.(*net.UnixConn); ok {
			_ = s.CloseWrite()
		}
	}()
	_, _ = io.Copy(client, near)
}

// Gone tells whether the client has closed its end altogether.
func (c *Client) Gone() (gone bool) {
	rc, err := c.File.SyscallConn()
	if err != nil {
		return true
	}
	_ = rc.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone
}

// Close drops our descriptor of the socket.
func (c *Client) Close() { c.File.Close() }

// Wait returns when nothing is left to copy, at once for a socket that was
// given away.
func (c *Client) Wait() error {
	if c.copied != nil {
		<-c.copied
	}
	return nil
}
