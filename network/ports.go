package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/nofile"
	"github.com/tarehq/tare/network/firewall"
)

// A socket from which nothing is accepted needs no backlog: it only keeps the
// port from others and shows it in ss(8).
const (
	backlog        = 1
	backlogRelayed = 1024
)

// CheckPorts refuses what cannot be published, before anything is taken.
func CheckPorts(ports []Port) error {
	for _, p := range ports {
		switch {
		case p.Proto != "" && p.Proto != "tcp" && p.Proto != "udp" && p.Proto != "sctp":
			return fault.New(fault.Invalid, "invalid proto: %s", p.Proto)
		case p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort:
			return fault.New(fault.Invalid, "invalid range of host ports: %d-%d", p.HostPort, p.HostPortEnd)
		}
	}
	return nil
}

// taken lists the ports of all sandboxes.
func (s *Service) taken() (list []Published) {
	for _, b := range s.sandboxes.all() {
		list = append(list, b.Ports...)
	}
	return list
}

// hosts are the addresses at which the port is to be published, one for each
// family. A container without a way out in a family has nothing published in
// it, but for what a relay can do.
func (s *Service) hosts(p Port, b *Sandbox) []netip.Addr {
	four, six := b.target4(), b.target6()
	bind4, bind6 := s.binds(four), s.binds(six)
	any6 := netip.IPv6Unspecified()
	relayable := six.Address.IsValid() || four.Address.IsValid() && !s.cfg.NoProxy && p.Proto != "sctp"
	switch host := p.HostIP.Unmap(); {
	case host.Is4():
		bind4, bind6 = host, netip.Addr{}
	case host.Is6():
		bind4, bind6 = netip.Addr{}, host
	case bind4.IsValid() && !bind4.IsUnspecified() && !bind6.IsValid():
		// Whoever chose one address chose no other.
	case !bind6.IsValid():
		bind6 = any6
	}
	if !bind4.IsValid() && !p.HostIP.IsValid() {
		bind4 = netip.IPv4Unspecified()
	}
	var out []netip.Addr
	if bind4.IsValid() && four.Address.IsValid() {
		out = append(out, bind4)
	}
	if bind6.IsValid() && relayable {
		out = append(out, bind6)
	}
	return out
}

// binds is where ports of the target's network are published that name no
// address.
func (s *Service) binds(t firewall.Target) netip.Addr {
	for _, g := range s.lans.segments() {
		if g.NetworkID == t.Network && t.Address.Is4() {
			return g.Bind4
		} else if g.NetworkID == t.Network {
			return g.Bind6
		}
	}
	return netip.Addr{}
}

// routed tells whether the target is reached at its own address alone.
func (s *Service) routed(t firewall.Target) bool {
	for _, g := range s.lans.segments() {
		if g.NetworkID == t.Network {
			return t.Address.Is4() && g.Mode4 == firewall.ModeRouted || t.Address.Is6() && g.Mode6 == firewall.ModeRouted
		}
	}
	return false
}

// reserve binds the sockets of the ports that the sandbox publishes. When one
// cannot be had, those taken before are given back; one that is among them or
// published by another sandbox is told from one that a program of the host has.
func (s *Service) reserve(ports []Port, b *Sandbox) (published []Published, sockets []*os.File, err error) {
	parts := make([]reserved, 1)
	if len(ports) >= manyPorts && !slices.ContainsFunc(ports, Port.choosy) {
		nofile.Room(2 * len(ports))
		parts = make([]reserved, min(runtime.GOMAXPROCS(0), maxBinders))
	}
	var binders sync.WaitGroup
	size := (len(ports) + len(parts) - 1) / len(parts)
	for i := range parts {
		of := ports[min(i*size, len(ports)):min((i+1)*size, len(ports))]
		if i == len(parts)-1 {
			parts[i] = s.reserveSome(of, b)
			break
		}
		binders.Go(func() { parts[i] = s.reserveSome(of, b) })
	}
	binders.Wait()
	for _, p := range parts {
		published, sockets = append(published, p.published...), append(sockets, p.sockets...)
		if err == nil {
			err = p.err
		}
	}
	if err == nil {
		return published, sockets, nil
	}
	closeAll(sockets)
	var taken *portTaken
	if errors.As(err, &taken) && slices.ContainsFunc(slices.Concat(published, s.taken()), func(p Published) bool {
		return p.Proto == taken.Proto && p.HostPort == taken.HostPort && p.sharesAddress(taken.Published)
	}) {
		err = fmt.Errorf("Bind for %s:%d failed: port is already allocated", taken.HostIP, taken.HostPort)
	}
	return nil, nil, err
}

const (
	// manyPorts are as many as are bound by several at once: a socket that
	// listens costs the kernel some 8 µs.
	manyPorts = 64
	// maxBinders is how many those are at most.
	maxBinders = 4
)

// choosy tells whether what the port gets depends on what others took before.
func (p Port) choosy() bool { return p.HostPort == 0 || p.HostPortEnd > p.HostPort }

// reserved are some of the ports, and those that were had before one that could
// not be.
type reserved struct {
	published []Published
	sockets   []*os.File
	err       error
}

func (s *Service) reserveSome(ports []Port, b *Sandbox) (r reserved) {
	for _, p := range ports {
		if p.Proto == "" {
			p.Proto = "tcp"
		}
		pubs, files, err := s.reserveOne(p, b)
		if err != nil {
			r.err = err
			return r
		}
		r.published, r.sockets = append(r.published, pubs...), append(r.sockets, files...)
	}
	return r
}

// portTaken is the failure of a port that somebody has.
type portTaken struct {
	Published
	err error
}

func (e *portTaken) Error() string {
	return fmt.Sprintf("failed to bind host port %s/%s: %v", netip.AddrPortFrom(e.HostIP, e.HostPort), e.Proto, e.err)
}

func (e *portTaken) Unwrap() error { return e.err }

// freeTries is how often a port that is free in one family is tried in the
// other.
const freeTries = 100

// reserveOne binds a port in each family, at the same number.
func (s *Service) reserveOne(p Port, b *Sandbox) (published []Published, sockets []*os.File, err error) {
	hosts := s.hosts(p, b)
	port, tries := p.HostPort, freeTries
	for {
		published, sockets, err = s.bindAll(hosts, port, p, b)
		switch {
		case err == nil || !errors.Is(err, unix.EADDRINUSE):
			return published, sockets, err
		case p.HostPort == 0 && tries > 0:
			tries--
		case port < p.HostPortEnd:
			port++
		default:
			return nil, nil, err
		}
	}
}

func (s *Service) bindAll(hosts []netip.Addr, port uint16, p Port, b *Sandbox) (published []Published, sockets []*os.File, err error) {
	for _, host := range hosts {
		pub := Published{HostIP: host, HostPort: port, ContainerPort: p.ContainerPort, Proto: p.Proto}
		target := b.target4()
		if host.Is6() {
			target = b.target6()
		}
		if target.Address.IsValid() && s.routed(target) {
			pub.HostPort = 0 // nothing is taken on the host
			published = append(published, pub)
			continue
		}
		what := passNothing
		if p.ContainerPort == 0 {
			// It leads nowhere.
		} else if host.Is6() && !target.Address.IsValid() || host.Is4() && b.Bare4 || host.Is6() && b.Bare6 {
			what = passAll
		} else if host.Is6() && b.relayed(host) {
			what = passLoopback
		}
		socket, bound, err := bind(host, port, p.Proto, what)
		if host == netip.IPv6Unspecified() && !p.HostIP.IsValid() && noSuchFamily(err) {
			continue // a host without IPv6
		}
		if err != nil {
			closeAll(sockets)
			return nil, nil, &portTaken{pub, err}
		}
		pub.HostPort, port = bound, bound
		published, sockets = append(published, pub), append(sockets, socket)
	}
	return published, sockets, nil
}

func noSuchFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// pass is what reaches a socket. What arrives before the port is redirected, or
// after it no longer is, must not: a client's SYN must be repeated rather than
// be answered by a backlog that nobody reads.
type pass int

const (
	passNothing  pass = iota
	passLoopback      // what goes to ::1
	passAll
)

// bind takes the host's port, a free one for 0, and tells which it is.
func bind(addr netip.Addr, port uint16, proto string, what pass) (_ *os.File, bound uint16, err error) {
	family, kind, protocol, waiting := unix.AF_INET, unix.SOCK_STREAM, 0, backlog
	if addr.Is6() {
		family = unix.AF_INET6
	}
	switch proto {
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		protocol = unix.IPPROTO_SCTP
	}
	if what != passNothing {
		waiting = backlogRelayed
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return nil, 0, fault.New(fault.NotImplemented, "the kernel has no %s: publish no %s ports, or load its module", proto, proto)
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = what.filter(fd); err != nil {
		return nil, 0, err
	}
	if family == unix.AF_INET6 {
		if err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return nil, 0, err
		}
	}
	if proto != "udp" {
		// For UDP the same option would let another program share the port.
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, 0, err
		}
	}
	if err = unix.Bind(fd, sockaddr(addr, port)); err != nil {
		return nil, 0, err
	}
	if proto != "udp" {
		// Two sockets that are bound may share a port; one that listens may not.
		if err = unix.Listen(fd, waiting); err != nil {
			return nil, 0, err
		}
	}
	if bound = port; port == 0 {
		if bound, err = localPort(fd); err != nil {
			return nil, 0, err
		}
	}
	return os.NewFile(uintptr(fd), "published port"), bound, nil
}

func sockaddr(addr netip.Addr, port uint16) unix.Sockaddr {
	if addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: addr.As16(), Port: int(port)}
}

func localPort(fd int) (uint16, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, fmt.Errorf("a socket of a family that was not asked for")
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// sharesAddress tells whether both are on a common address of the host.
func (p Published) sharesAddress(q Published) bool {
	return p.HostIP == q.HostIP || p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified()
}
