// Package relay passes connections and datagrams of a container's published
// ports on to it, where the kernel's address translation cannot: what comes to
// [::1], which never leaves lo, and IPv6 for a container that has IPv4 alone; or all
// of it, where the daemon is to have no rules.
//
// The supervising process runs it, as it holds the ports' sockets and outlives
// the daemon. All sockets wait in one epoll set, so that a port costs no
// goroutine; a connection costs two while it lasts. Package net is not linked:
// it would be in every container's process.
package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Rule says where what arrives at some sockets goes: ports First to Last of the
// address Host to the ports of To's address from To's port on.
type Rule struct {
	Proto       string // tcp or udp
	Host        string
	First, Last uint16
	To          string // address and port
	Whole       bool   // no filter that the sockets were made with is to stay
}

// backlog is how many connections may wait at a port.
const backlog = 1024

// Relay is what passes on.
type Relay struct {
	set  *os.File // the epoll set
	busy Busy
	done chan struct{}

	// by descriptor; of the serving goroutine alone
	ports map[int32]*port
	peers map[int32]*peer
	swept time.Time
}

// port is a socket of a published port.
type port struct {
	fd    int
	proto string
	to    netip.AddrPort
	flows map[flow]*peer // of datagrams
}

// Busy is told before a connection is taken and after its end, for whoever must
// know that none is on its way.
type Busy struct{ Begin, End func() }

// New begins to serve those of the sockets that a rule is for; the others stay
// as they are. All stay the caller's, who leaves them open until Close.
func New(sockets []*os.File, rules []Rule, busy Busy) (*Relay, error) {
	r := &Relay{busy: busy, ports: map[int32]*port{}, peers: map[int32]*peer{}}
	ways, err := readRules(rules)
	if err != nil {
		return nil, err
	}
	for _, s := range sockets {
		fd := int(s.Fd()) // which makes some block
		p, err := portOf(fd, ways)
		if err != nil {
			return nil, err
		}
		if p != nil {
			r.ports[int32(fd)] = p
		}
	}
	if len(r.ports) == 0 {
		return r, nil
	}
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// The set itself waits in the runtime's.
	if err := unix.SetNonblock(set, true); err != nil {
		unix.Close(set)
		return nil, err
	}
	r.set = os.NewFile(uintptr(set), "published ports")
	for fd := range r.ports {
		if err := await(set, fd); err != nil {
			r.set.Close()
			return nil, err
		}
	}
	r.done = make(chan struct{})
	go r.serve()
	return r, nil
}

// await has the set tell when something arrives at the socket.
func await(set int, fd int32) error {
	err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: fd})
	return os.NewSyscallError("epoll_ctl", err)
}

// way is a rule as it was read.
type way struct {
	Rule
	host netip.Addr
	to   netip.AddrPort
}

func readRules(rules []Rule) (ways []way, err error) {
	for _, r := range rules {
		w := way{Rule: r}
		if w.host, err = netip.ParseAddr(r.Host); err != nil {
			return nil, fmt.Errorf("relay from %q: %w", r.Host, err)
		}
		if w.to, err = netip.ParseAddrPort(r.To); err != nil {
			return nil, fmt.Errorf("relay to %q: %w", r.To, err)
		}
		ways = append(ways, w)
	}
	return ways, nil
}

// portOf finds the rule of a socket; nil is none.
func portOf(fd int, ways []way) (*port, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, nil // not a socket
	}
	own := addrPort(sa)
	proto := "" // asked for once
	for _, w := range ways {
		if w.host != own.Addr() || own.Port() < w.First || own.Port() > w.Last {
			continue
		}
		if proto == "" {
			proto = protocol(fd)
		}
		if w.Proto != proto {
			continue
		}
		to := netip.AddrPortFrom(w.to.Addr(), w.to.Port()+own.Port()-w.First)
		if proto == "udp" {
			// An answer must come from the address that was asked.
			level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
			if own.Addr().Is4() {
				level, option = unix.IPPROTO_IP, unix.IP_PKTINFO
			}
			if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
				return nil, os.NewSyscallError("setsockopt", err)
			}
		}
		if w.Whole || to.Addr().Is4() { // all that comes is for us, though it may have been otherwise
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		}
		if w.Whole && proto == "tcp" { // a socket that only kept its port has hardly any
			if err := unix.Listen(fd, backlog); err != nil {
				return nil, os.NewSyscallError("listen", err)
			}
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, err
		}
		return &port{fd: fd, proto: proto, to: to}, nil
	}
	return nil, nil
}

func protocol(fd int) string {
	switch kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); kind {
	case unix.SOCK_STREAM:
		return "tcp"
	case unix.SOCK_DGRAM:
		return "udp"
	}
	return ""
}

// Close takes the sockets out of service. Connections that are passed on go on
// until their ends.
func (r *Relay) Close() {
	if r == nil || r.set == nil {
		return
	}
	r.set.Close()
	<-r.done
}

// serve waits for what arrives until the set is closed.
func (r *Relay) serve() {
	defer close(r.done)
	defer r.forget(func(*peer) bool { return true })
	raw, err := r.set.SyscallConn()
	if err != nil {
		return
	}
	datagram := make([]byte, 1<<16)
	events := make([]unix.EpollEvent, 64)
	for {
		var rest time.Time
		if len(r.peers) > 0 {
			rest = time.Now().Add(idle)
		}
		if r.set.SetReadDeadline(rest) != nil {
			return
		}
		n, set := 0, 0
		err := raw.Read(func(fd uintptr) bool {
			set = int(fd)
			n, err = unix.EpollWait(set, events, 0)
			return n > 0 || err != nil && err != unix.EINTR
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if p := r.ports[e.Fd]; p == nil {
				r.answer(e.Fd, datagram)
			} else if p.proto == "udp" {
				r.receive(p, set, int(e.Fd), datagram)
			} else {
				r.accept(p, int(e.Fd))
			}
		}
		if now := time.Now(); now.Sub(r.swept) > idle {
			r.swept = now
			r.forget(func(p *peer) bool { return now.Sub(p.last) > idle })
		}
	}
}

// accept takes what waits on a listening socket.
func (r *Relay) accept(p *port, fd int) {
	for range 64 { // and then the other sockets
		r.busy.Begin()
		client, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == nil {
			go func() {
				defer r.busy.End()
				pass(client, p.to)
			}()
			continue
		}
		r.busy.End()
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
			time.Sleep(10 * time.Millisecond) // it will wait, and so must we
		}
		return
	}
}

// addrPort reads a socket's address.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// dial makes a connection that is under way, or ready for datagrams.
func dial(kind int, to netip.AddrPort) (fd int, err error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}
