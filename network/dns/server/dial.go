package server

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
)

// dialer makes sockets in the namespaces of sandboxes, on a thread that is
// there for nothing else. A socket stays in the namespace that it was made in.
type dialer struct{ wanted chan wish }

type wish struct {
	inside *box
	domain int
	kind   int
	made   chan<- made
}

type made struct {
	fd  int
	err error
}

func newDialer() *dialer {
	d := &dialer{make(chan wish)}
	go thread.Own(func() bool {
		for w := range d.wanted {
			fd, err := w.make()
			w.made <- made{fd, err}
		}
		return false
	})
	return d
}

func (w wish) make() (fd int, err error) {
	raw, err := w.inside.udp.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(of uintptr) {
		var ns int
		if ns, err = unix.IoctlRetInt(int(of), unix.SIOCGSKNS); err != nil {
			return
		}
		err = unix.Setns(ns, unix.CLONE_NEWNET)
		unix.Close(ns)
	})
	if failed != nil {
		return -1, failed
	}
	if err != nil {
		return -1, fmt.Errorf("enter a container's network namespace: %w", err)
	}
	return socket(w.domain, w.kind)
}

func socket(domain, kind int) (int, error) {
	return unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

// connect makes a socket to the server, in the box's namespace or in that of
// this process, whose reads and writes end at the deadline. Its port is of the
// kernel's choice and nobody can foretell it.
func (d *dialer) connect(b *box, u *upstream, tcp bool, deadline time.Time) (*os.File, error) {
	kind, domain := unix.SOCK_DGRAM, unix.AF_INET6
	if tcp {
		kind = unix.SOCK_STREAM
	}
	if u.addr.Addr().Is4() {
		domain = unix.AF_INET
	}
	var fd int
	var err error
	if u.inside {
		done := make(chan made)
		d.wanted <- wish{b, domain, kind, done}
		m := <-done
		fd, err = m.fd, m.err
	} else {
		fd, err = socket(domain, kind)
	}
	if err != nil {
		return nil, err
	}
	to, err := sockaddr(fd, u.addr)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	f := os.NewFile(uintptr(fd), u.addr.String())
	if err == unix.EINPROGRESS {
		err = connected(f, deadline)
	}
	if err == nil {
		err = f.SetDeadline(deadline)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// connected waits until the connection stands.
func connected(f *os.File, deadline time.Time) error {
	if err := f.SetWriteDeadline(deadline); err != nil {
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var errno int
		if errno, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); failed == nil && errno != 0 {
			failed = unix.Errno(errno)
		}
		if failed != nil {
			return true
		}
		_, notYet := unix.Getpeername(int(fd))
		return notYet == nil
	})
	if err != nil {
		return err
	}
	return failed
}

// sockaddr names the server to the kernel. The zone of an address is an
// interface of the namespace that the socket is in.
func sockaddr(fd int, a netip.AddrPort) (unix.Sockaddr, error) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, nil
	}
	sa := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if zone := a.Addr().Zone(); zone != "" {
		req, err := unix.NewIfreq(zone)
		if err != nil {
			return nil, err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
			return nil, fmt.Errorf("find the interface %s: %w", zone, err)
		}
		sa.ZoneId = req.Uint32()
	}
	return sa, nil
}
