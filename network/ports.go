package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// backlog is small because nothing is ever accepted: the socket only keeps the
// port from others and shows it in ss(8).
const backlog = 1

// CheckPorts refuses what cannot be published, before anything is taken.
func CheckPorts(ports []Port) error {
	for _, p := range ports {
		switch {
		case p.HostIP.IsValid() && !p.HostIP.Unmap().Is4():
			return fault.New(fault.NotImplemented, "publishing on the IPv6 address %s is not supported yet", p.HostIP)
		case p.Proto == "sctp":
			return fault.New(fault.NotImplemented, "publishing sctp ports is not supported yet")
		case p.Proto != "" && p.Proto != "tcp" && p.Proto != "udp":
			return fault.New(fault.Invalid, "invalid proto: %s", p.Proto)
		case p.ContainerPort == 0:
			return fault.New(fault.Invalid, "invalid containerPort: 0")
		case p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort:
			return fault.New(fault.Invalid, "invalid range of host ports: %d-%d", p.HostPort, p.HostPortEnd)
		}
	}
	return nil
}

// reserve binds a socket for each port. When one cannot be had, those taken
// before are given back; one that is among them or the others, which are
// published already, is told from one that a program of the host has.
func reserve(ports []Port, others func() []Published) (published []Published, sockets []*os.File, err error) {
	for _, p := range ports {
		pub, socket, err := reserveOne(p)
		if err != nil {
			closeAll(sockets)
			if errors.Is(err, unix.EADDRINUSE) && slices.ContainsFunc(slices.Concat(published, others()), func(p Published) bool {
				return p.Proto == pub.Proto && p.HostPort == pub.HostPort && p.sharesAddress(pub)
			}) {
				err = fmt.Errorf("Bind for %s:%d failed: port is already allocated", pub.HostIP, pub.HostPort)
			}
			return nil, nil, err
		}
		published, sockets = append(published, pub), append(sockets, socket)
	}
	return published, sockets, nil
}

func reserveOne(p Port) (Published, *os.File, error) {
	pub := Published{HostIP: netip.IPv4Unspecified(), HostPort: p.HostPort, ContainerPort: p.ContainerPort, Proto: p.Proto}
	if p.HostIP.IsValid() {
		pub.HostIP = p.HostIP.Unmap()
	}
	if pub.Proto == "" {
		pub.Proto = "tcp"
	}
	for {
		socket, port, err := bind(pub.HostIP, pub.HostPort, pub.Proto)
		if err == nil {
			pub.HostPort = port
			return pub, socket, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || pub.HostPort >= p.HostPortEnd {
			return pub, nil, fmt.Errorf("failed to bind host port %s:%d/%s: %w", pub.HostIP, pub.HostPort, pub.Proto, err)
		}
		pub.HostPort++
	}
}

// bind takes the host's port, a free one for 0, and tells which it is.
func bind(addr netip.Addr, port uint16, proto string) (_ *os.File, bound uint16, err error) {
	kind := unix.SOCK_STREAM
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = refuseAll(fd); err != nil {
		return nil, 0, err
	}
	if proto == "tcp" {
		// For UDP the same option would let another program share the port.
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, 0, err
		}
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4(), Port: int(port)}); err != nil {
		return nil, 0, err
	}
	if proto == "tcp" {
		// Two sockets that are bound may share a port; one that listens may not.
		if err = unix.Listen(fd, backlog); err != nil {
			return nil, 0, err
		}
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, 0, err
	}
	bound = uint16(sa.(*unix.SockaddrInet4).Port)
	return os.NewFile(uintptr(fd), fmt.Sprintf("%s:%d/%s", addr, bound, proto)), bound, nil
}

// refuseAll makes the socket drop what arrives before the port is redirected
// or after it no longer is: a client's SYN must be repeated rather than be
// answered by a backlog that nobody reads.
func refuseAll(fd int) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
