package dns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
)

// preferredPort is outside of what the kernel gives to those who name no port,
// and nobody's by custom. A server in a container that wants it, on all
// addresses, is refused.
const preferredPort = 61053

// Open makes the outlets of a namespace, whose lo is up, without a lifeline.
// There must be no other ones: the table is the only one of its name.
func Open(netns *os.File) (o *Outlets, err error) {
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer home.Close()
	thread.Own(func() bool {
		if err = setns(netns); err != nil {
			err = fmt.Errorf("enter the network namespace: %w", err)
			return true
		}
		o, err = open()
		if back := setns(home); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
			return false
		}
		return true
	})
	if err != nil && o != nil {
		o.Close()
		o = nil
	}
	return o, err
}

func setns(f *os.File) error { return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET) }

// open works in the calling thread's namespace.
func open() (_ *Outlets, err error) {
	o := &Outlets{}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	udp, udpPort, err := listen(unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	o.UDP = udp
	tcp, tcpPort, err := listen(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	o.TCP = tcp
	o.Rules, err = redirect(udpPort, tcpPort)
	return o, err
}

// listen binds a socket to Address at another port, which nobody knows but the
// rules.
func listen(kind int) (*os.File, uint16, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open a socket for the resolver: %w", err)
	}
	f := os.NewFile(uintptr(fd), "resolver")
	if kind == unix.SOCK_STREAM { // what a predecessor left in TIME_WAIT
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: Address.Addr().As4(), Port: preferredPort})
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: Address.Addr().As4()})
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 128)
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("bind the resolver's socket to %s: %w", Address.Addr(), err)
	}
	return f, uint16(name.(*unix.SockaddrInet4).Port), nil
}
