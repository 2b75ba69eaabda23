// Package publish takes ports of the host for those of containers: it binds a socket
// for each, which keeps the port from others and hears only what a relay passes on.
// Where the packets go is the firewall's.
package publish

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
)

// A socket from which nothing is accepted needs no backlog: it only keeps the
// port from others and shows it in ss(8).
const (
	backlog        = 1
	backlogRelayed = 1024
)

// Port asks to publish one port of the container.
type Port struct {
	// HostIP is the host's address to publish on; the zero Addr and 0.0.0.0
	// mean all of them.
	HostIP netip.Addr
	// HostPort is the host's port; 0 takes a free one. With a HostPortEnd
	// above it the first free port of the range is taken.
	HostPort, HostPortEnd uint16
	// ContainerPort 0 takes a port of the host that leads nowhere, as with Docker.
	ContainerPort uint16
	// Proto is "tcp" or "udp"; "" means tcp.
	Proto string
}

// Published is a port as it was published.
type Published struct {
	HostIP        netip.Addr
	HostPort      uint16
	ContainerPort uint16
	Proto         string
}

// SharesAddress tells whether both are on a common address of the host.
func (p Published) SharesAddress(q Published) bool {
	return p.HostIP == q.HostIP || p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified()
}

// Place is what published ports lead to, and what is known of its networks.
type Place struct {
	// To4 and To6 are the container's addresses; the zero Addr of a family in which
	// it has no way out.
	To4, To6 netip.Addr
	// Bind4 and Bind6 are where ports are published that name no address.
	Bind4, Bind6 netip.Addr
	// Routed4 and Routed6 tell that the container is reached at its own address alone.
	Routed4, Routed6 bool
	// NoProxy publishes nothing on IPv6 for a container that has IPv4 alone.
	NoProxy bool
	// Bare4 and Bare6 tell that no rule leads to the container in the family.
	Bare4, Bare6 bool
}

// to is where what arrives at an address of the host leads.
func (b *Place) to(host netip.Addr) (target netip.Addr, routed bool) {
	if host.Is6() {
		return b.To6, b.To6.IsValid() && b.Routed6
	}
	return b.To4, b.To4.IsValid() && b.Routed4
}

// Relayed tells whether anything arrives at a socket that is bound to the address.
func (b *Place) Relayed(host netip.Addr) bool {
	if host.Is4() {
		return b.Bare4
	}
	return b.Bare6 || host.IsUnspecified() || host.IsLoopback() || !b.To6.IsValid()
}

// Check refuses what cannot be published, before anything is taken.
func Check(ports []Port) error {
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

// hosts are the addresses at which the port is to be published, one for each
// family. A container without a way out in a family has nothing published in
// it, but for what a relay can do.
func (b *Place) hosts(p Port) []netip.Addr {
	bind4, bind6 := b.Bind4, b.Bind6
	any6 := netip.IPv6Unspecified()
	relayable := b.To6.IsValid() || b.To4.IsValid() && !b.NoProxy && p.Proto != "sctp"
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
	if bind4.IsValid() && b.To4.IsValid() {
		out = append(out, bind4)
	}
	if bind6.IsValid() && relayable {
		out = append(out, bind6)
	}
	return out
}

// Reserve binds the sockets of the ports that lead to the place. When one cannot be had,
// those taken before are given back; one that is among them or those that others have
// published is told from one that a program of the host has.
func (b *Place) Reserve(ports []Port, others func() []Published) (published []Published, sockets []*os.File, err error) {
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
			parts[i] = b.reserveSome(of)
			break
		}
		binders.Go(func() { parts[i] = b.reserveSome(of) })
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
	if errors.As(err, &taken) && slices.ContainsFunc(slices.Concat(published, others()), func(p Published) bool {
		return p.Proto == taken.Proto && p.HostPort == taken.HostPort && p.SharesAddress(taken.Published)
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

func (b *Place) reserveSome(ports []Port) (r reserved) {
	for _, p := range ports {
		if p.Proto == "" {
			p.Proto = "tcp"
		}
		pubs, files, err := b.reserveOne(p)
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
func (b *Place) reserveOne(p Port) (published []Published, sockets []*os.File, err error) {
	hosts := b.hosts(p)
	port, tries := p.HostPort, freeTries
	for {
		published, sockets, err = b.bindAll(hosts, port, p)
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

func (b *Place) bindAll(hosts []netip.Addr, port uint16, p Port) (published []Published, sockets []*os.File, err error) {
	for _, host := range hosts {
		pub := Published{HostIP: host, HostPort: port, ContainerPort: p.ContainerPort, Proto: p.Proto}
		target, routed := b.to(host)
		if routed {
			pub.HostPort = 0 // nothing is taken on the host
			published = append(published, pub)
			continue
		}
		what := passNothing
		if p.ContainerPort == 0 {
			// It leads nowhere.
		} else if host.Is6() && (b.Bare6 || !target.IsValid()) || host.Is4() && b.Bare4 {
			what = passAll
		} else if host.Is6() && b.Relayed(host) {
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
