package ocirun

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// routeSocket speaks rtnetlink(7) with the network namespace in which it was
// opened, one request at a time.
type routeSocket struct {
	fd  int
	seq uint32
}

func dialRoute() (*routeSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &routeSocket{fd: fd}, nil
}

func (s *routeSocket) close() { unix.Close(s.fd) }

// do sends a request and gives each part of the answer to each.
func (s *routeSocket) do(kind, flags uint16, body []byte, each func([]byte)) error {
	s.seq++
	ne := binary.NativeEndian
	if flags != unix.NLM_F_DUMP {
		flags |= unix.NLM_F_ACK
	}
	out := ne.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	out = ne.AppendUint16(out, kind)
	out = ne.AppendUint16(out, flags|unix.NLM_F_REQUEST)
	out = append(ne.AppendUint32(ne.AppendUint32(out, s.seq), 0), body...)
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		over, err := s.read(buf[:n], each)
		if over || err != nil {
			return err
		}
	}
}

// read reads one datagram of an answer and tells whether it was the last.
func (s *routeSocket) read(b []byte, each func([]byte)) (over bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(ne.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, unix.EBADMSG
		}
		kind, body := ne.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]
		mine := ne.Uint32(b[8:]) == s.seq
		b = b[min((size+3)&^3, len(b)):]
		switch {
		case !mine:
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR:
			if e := int32(ne.Uint32(body)); e != 0 {
				return true, unix.Errno(-e)
			}
			return true, nil
		case each != nil && len(body) >= unix.SizeofIfAddrmsg:
			each(body)
		}
	}
	return false, nil
}

// attribute appends a struct rtattr.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func eachAttribute(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}
