// Package seqpacket carries messages with files over unix sockets of type
// SOCK_SEQPACKET: a message arrives whole or not at all, in order, and the end
// of the peer is told. It does without package net, whose weight many small
// processes would carry many times over.
package seqpacket

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// inline is the longest message that travels in the datagram itself; a
	// longer one travels in a memfd beside a datagram that says only so. The
	// kernel's own bound is the send buffer.
	inline = 16 << 10
	// maxMessage bounds what a peer can make us read.
	maxMessage = 64 << 20
	// MaxFiles is how many files one message can carry: SCM_MAX_FD, less the
	// memfd of a long message.
	MaxFiles = 252
)

// The first byte of a datagram says where the message is.
const (
	here    byte = 'm' // it follows
	inMemfd byte = 'M' // it is the content of the first file
)

// Conn is one connection. Its methods may be called concurrently.
type Conn struct {
	f  *os.File
	rc syscall.RawConn
}

var bufs = sync.Pool{New: func() any { b := make([]byte, inline+1); return &b }}

// New makes a Conn of a connected socket and takes it over.
func New(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "seqpacket")
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Conn{f, rc}, nil
}

// Pair returns the two ends of a connection; the second is to be given to a
// new process.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a pair of sockets: %w", err)
	}
	c, err := New(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return c, os.NewFile(uintptr(fds[1]), "seqpacket"), nil
}

// Dial connects to the socket at path, however long the path is.
func Dial(path string) (*Conn, error) {
	fd, err := socketAt(path, unix.Connect)
	if err != nil {
		return nil, err
	}
	return New(fd)
}

// socketAt makes a socket and calls bind(2) or connect(2) for path. An address
// holds 108 bytes, so the directory is named by a descriptor.
func socketAt(path string, call func(fd int, sa unix.Sockaddr) error) (int, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	sa := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))}
	if err := call(fd, sa); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "socket", Path: path, Err: err}
	}
	return fd, nil
}

// Descriptor is the connection's, for a program that is executed in the place of
// this one.
func (c *Conn) Descriptor() (int, error) { return descriptor(c.rc) }

func descriptor(rc syscall.RawConn) (n int, err error) {
	err = rc.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// Close closes the connection; blocked calls return.
func (c *Conn) Close() error { return c.f.Close() }

// Await waits until there is something to receive, or the connection has ended.
func (c *Conn) Await() error { return readable(c.rc) }

// Number is the descriptor, for New in the program that this process executes.
func (c *Conn) Number() (int, error) { return number(c.rc) }

func readable(rc syscall.RawConn) error {
	return rc.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err != nil && err != unix.EINTR || n > 0
	})
}

func number(rc syscall.RawConn) (n int, err error) {
	err = rc.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// Send sends one message with the files, which stay the caller's. It waits
// while the peer does not read.
func (c *Conn) Send(msg []byte, files ...*os.File) error {
	if len(files) > MaxFiles {
		return fmt.Errorf("a message carries %d files at most", MaxFiles)
	}
	fds := make([]int, 0, len(files)+1)
	datagram := make([]byte, 1, len(msg)+1)
	if len(msg) <= inline {
		datagram[0] = here
		datagram = append(datagram, msg...)
	} else {
		long, err := memfd(msg)
		if err != nil {
			return err
		}
		defer unix.Close(long)
		datagram[0] = inMemfd
		datagram = append(datagram, msg[:headSize]...) // should the rest be lost
		fds = append(fds, long)
	}
	for _, f := range files {
		// Fd would make the file blocking for good
		rc, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := rc.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	var err error
	werr := c.rc.Write(func(fd uintptr) bool {
		_, err = unix.SendmsgN(int(fd), datagram, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	})
	if werr != nil {
		err = werr
	}
	return err
}

func memfd(msg []byte) (int, error) {
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for off := 0; off < len(msg); {
		n, err := unix.Pwrite(fd, msg[off:], int64(off))
		if err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("write", err)
		}
		off += n
	}
	return fd, nil
}

// headSize is how much of a long message is also in the datagram.
const headSize = 64

// ErrFilesLost comes with a message whose files could not be received, as this
// process may not open more. Of a long message, which is a file itself, only the
// first 64 bytes are left.
var ErrFilesLost = errors.New("the files of a message are lost: the limit of open files is too low")

// Recv waits for the next message; the files are the caller's. At the end of
// the peer it returns io.EOF. With ErrFilesLost there is a message, without its
// files.
func (c *Conn) Recv() ([]byte, []*os.File, error) {
	var msg []byte
	var fds []int
	var err error
	rerr := c.rc.Read(func(fd uintptr) bool {
		msg, fds, err = recv(int(fd))
		return err != unix.EAGAIN
	})
	if rerr != nil {
		err = rerr
	}
	if err == ErrFilesLost && len(msg) > 0 {
		return msg[1:], nil, err
	}
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			err = io.EOF
		}
		return nil, nil, err
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "received")
	}
	switch {
	case len(msg) == 0:
		err = io.EOF
	case msg[0] == here:
		return msg[1:], files, nil
	case msg[0] == inMemfd && len(files) > 0:
		long, err := content(files[0])
		files[0].Close()
		if err == nil {
			return long, files[1:], nil
		}
		files = files[1:]
	default:
		err = errors.New("a message of an unknown form came")
	}
	for _, f := range files {
		f.Close()
	}
	return nil, nil, err
}

// recv receives one datagram if there is one. The buffers are taken only then,
// so that a connection that waits costs no memory.
func recv(fd int) ([]byte, []int, error) {
	bp := bufs.Get().(*[]byte)
	defer bufs.Put(bp)
	var oobBuf [4 + 4*253 + 32]byte
	n, oobn, flags, _, err := unix.Recvmsg(fd, *bp, oobBuf[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, nil, err
	}
	var fds []int
	if oobn > 0 {
		cmsgs, err := unix.ParseSocketControlMessage(oobBuf[:oobn])
		if err != nil {
			return nil, nil, err
		}
		for i := range cmsgs {
			if got, err := unix.ParseUnixRights(&cmsgs[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	msg := append([]byte(nil), (*bp)[:n]...)
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) == 0 {
		return msg, fds, nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, nil, errors.New("a message was cut off")
	}
	return msg, nil, ErrFilesLost
}

func content(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes came, more than %d", st.Size(), maxMessage)
	}
	msg := make([]byte, st.Size())
	if _, err := f.ReadAt(msg, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return msg, nil
}
