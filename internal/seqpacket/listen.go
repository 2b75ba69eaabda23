package seqpacket

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listener accepts connections.
type Listener struct {
	f  *os.File
	rc syscall.RawConn
}

// Listen makes the socket at path, mode 0600, however long the path is.
func Listen(path string) (*Listener, error) {
	fd, err := socketAt(path, unix.Bind)
	if err != nil {
		return nil, err
	}
	if err := unix.Chmod(path, 0o600); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	if err := unix.Listen(fd, 64); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	return NewListener(fd)
}

// NewListener makes a Listener of a listening socket and takes it over.
func NewListener(fd int) (*Listener, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "listener")
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Listener{f, rc}, nil
}

// Await waits until there is a connection to accept.
func (l *Listener) Await() error { return readable(l.rc) }

// Number is the descriptor, for Listening in the program that this process
// executes.
func (l *Listener) Number() (int, error) { return number(l.rc) }

// Accept waits for the next connection.
func (l *Listener) Accept() (*Conn, error) {
	var nfd int
	var err error
	rerr := l.rc.Read(func(fd uintptr) bool {
		for {
			nfd, _, err = unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
			if err != unix.ECONNABORTED && err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if rerr != nil {
		return nil, rerr
	}
	if err != nil {
		return nil, os.NewSyscallError("accept", err)
	}
	return New(nfd)
}

// Descriptor is the listening socket's, for a program that is executed in the
// place of this one.
func (l *Listener) Descriptor() (int, error) { return descriptor(l.rc) }

// Close ends the listening; a blocked Accept returns.
func (l *Listener) Close() error { return l.f.Close() }
