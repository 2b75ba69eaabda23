package relay

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// flow is a client's datagrams to one of the host's addresses.
type flow struct {
	client netip.AddrPort
	own    netip.Addr
	zone   uint32 // the interface, of an address of the link
}

// peer is the socket that stands for a client towards the container.
type peer struct {
	fd   int
	port *port
	flow flow
	last time.Time
}

const (
	// idle is how long a flow may rest.
	idle = 90 * time.Second
	// maxFlows bounds what a port's clients can make the process keep: their
	// addresses may be invented.
	maxFlows = 512
)

// receive passes on what waits on a port's socket.
func (r *Relay) receive(p *port, set, fd int, buf []byte) {
	control := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for range 64 { // and then the other sockets
		n, oob, _, sa, err := unix.Recvmsg(fd, buf, control, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		f := flow{client: addrPort(sa)}
		if from, ok := sa.(*unix.SockaddrInet6); ok {
			f.zone = from.ZoneId
		}
		f.own = destination(control[:oob])
		to := p.flows[f]
		if to == nil {
			to = r.meet(p, f, set)
		}
		if to != nil {
			to.last = time.Now()
			// Datagrams may be lost; what was refused before is told once.
			if _, err := unix.Write(to.fd, buf[:n]); err == unix.ECONNREFUSED {
				_, _ = unix.Write(to.fd, buf[:n])
			}
		}
	}
}

// meet makes the socket of a new flow; nil if there cannot be one.
func (r *Relay) meet(p *port, f flow, set int) *peer {
	if len(p.flows) >= maxFlows {
		return nil
	}
	fd, err := dial(unix.SOCK_DGRAM, p.to)
	if err != nil {
		return nil
	}
	if await(set, int32(fd)) != nil {
		unix.Close(fd)
		return nil
	}
	made := &peer{fd: fd, port: p, flow: f}
	if p.flows == nil {
		p.flows = map[flow]*peer{}
	}
	p.flows[f], r.peers[int32(fd)] = made, made
	return made
}

// answer passes what the container says back to the client.
func (r *Relay) answer(fd int32, buf []byte) {
	p := r.peers[fd]
	if p == nil {
		return
	}
	for range 64 {
		n, err := unix.Read(p.fd, buf)
		if err != nil {
			return // a service that is not there yet refuses the first ones
		}
		p.last = time.Now()
		_ = unix.Sendmsg(p.port.fd, buf[:n], source(p.flow.own), p.flow.sockaddr(), 0) // it may be lost
	}
}

// forget ends the flows that are chosen.
func (r *Relay) forget(which func(*peer) bool) {
	for fd, p := range r.peers {
		if which(p) {
			delete(r.peers, fd)
			delete(p.port.flows, p.flow)
			unix.Close(p.fd)
		}
	}
}

// destination reads IPV6_PKTINFO, or the address to answer from of IP_PKTINFO.
func destination(control []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
			return netip.AddrFrom16([16]byte(m.Data))
		}
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			return netip.AddrFrom4([4]byte(m.Data[4:]))
		}
	}
	return netip.Addr{}
}

func (f flow) sockaddr() unix.Sockaddr {
	if f.client.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: f.client.Addr().As4(), Port: int(f.client.Port())}
	}
	return &unix.SockaddrInet6{Addr: f.client.Addr().As16(), Port: int(f.client.Port()), ZoneId: f.zone}
}

// source is the control message that chooses a datagram's source.
func source(own netip.Addr) []byte {
	if !own.IsValid() {
		return nil
	}
	if own.Is4() {
		b := make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(unix.SizeofInet4Pktinfo)))
		binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_IP)
		binary.NativeEndian.PutUint32(b[12:], unix.IP_PKTINFO)
		address := own.As4()
		copy(b[20:], address[:]) // after the interface
		return b
	}
	b := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(unix.SizeofInet6Pktinfo)))
	binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_IPV6)
	binary.NativeEndian.PutUint32(b[12:], unix.IPV6_PKTINFO)
	address := own.As16()
	copy(b[16:], address[:])
	return b
}
