package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/network/ipam"
)

// conn is a socket of rtnetlink(7). It acts on the network namespace in
// which it was made, from whichever thread it is used, and keeps that
// namespace alive.
type conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
}

// request is one message of a batch; what names it in errors.
type request struct {
	what  string
	typ   uint16
	flags uint16
	body  []byte
}

// patience is how long the kernel may owe an answer, and an interface that is to
// be gone stay.
const patience = 10 * time.Second

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	// The answers are ready when sendto returns; the limit only guards
	// against a kernel that owes one.
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up a netlink socket: %w", err)
	}
	return &conn{fd: fd}, nil
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	unix.Close(c.fd)
	c.fd = -1
}

// do sends the requests in one system call. The kernel carries out each of
// them whatever becomes of the others; the first failure is returned.
func (c *conn) do(requests ...request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1
	var out []byte
	for _, r := range requests {
		c.seq++
		out = binary.NativeEndian.AppendUint32(out, uint32(unix.SizeofNlMsghdr+len(r.body)))
		out = binary.NativeEndian.AppendUint16(out, r.typ)
		out = binary.NativeEndian.AppendUint16(out, r.flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
		out = binary.NativeEndian.AppendUint32(out, c.seq)
		out = binary.NativeEndian.AppendUint32(out, 0)
		out = append(out, r.body...)
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	return c.acknowledged(first, requests)
}

// acknowledged reads the kernel's answer to each of the requests, whose
// sequence numbers start with first.
func (c *conn) acknowledged(first uint32, requests []request) error {
	var failure error
	buf := make([]byte, 8192)
	for left := len(requests); left > 0; {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive from netlink: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return fmt.Errorf("receive from netlink: a message of %d bytes in %d", size, len(b))
			}
			typ, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
			if i := int(seq - first); typ == unix.NLMSG_ERROR && size >= unix.SizeofNlMsghdr+4 && i >= 0 && i < len(requests) {
				left--
				if errno := int32(binary.NativeEndian.Uint32(b[16:])); errno != 0 && failure == nil {
					failure = fmt.Errorf("%s: %w", requests[i].what, unix.Errno(-errno))
				}
			}
			b = b[min(align4(size), len(b)):]
		}
	}
	return failure
}

// index asks for an interface's index in the connection's namespace.
func (c *conn) index(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Interface ioctls are the socket layer's, open to every family.
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("find the interface %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}

// has tells whether there is an interface of the name.
func (c *conn) has(name string) bool {
	_, err := c.index(name)
	return !errors.Is(err, unix.ENODEV)
}

func align4(n int) int { return (n + 3) &^ 3 }

// attribute appends a routing attribute with its padding.
func attribute(b []byte, typ uint16, data ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, align4(len(data))-len(data))...)
}

func text(s string) []byte { return append([]byte(s), 0) }

func number(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// linkHeader is struct ifinfomsg; up also sets IFF_UP.
func linkHeader(index int, up bool) []byte {
	var flags, change uint32
	if up {
		flags, change = unix.IFF_UP, unix.IFF_UP
	}
	b := make([]byte, 4, 16)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// addVeth makes an interface pair at once: the end host, up and on the bridge,
// and the end name in the network namespace that nsFD refers to.
func addVeth(host string, bridge, mtu int, name string, nsFD int) request {
	const vethInfoPeer = 1 // VETH_INFO_PEER, linux/veth.h
	// The peer cannot be up in the message that makes it.
	peer := linkHeader(0, false)
	peer = attribute(peer, unix.IFLA_IFNAME, text(name)...)
	peer = attribute(peer, unix.IFLA_MTU, number(uint32(mtu))...)
	peer = attribute(peer, unix.IFLA_NET_NS_FD, number(uint32(nsFD))...)

	info := attribute(nil, unix.IFLA_INFO_KIND, []byte("veth")...)
	info = attribute(info, unix.IFLA_INFO_DATA, attribute(nil, vethInfoPeer, peer...)...)

	b := linkHeader(0, true)
	b = attribute(b, unix.IFLA_IFNAME, text(host)...)
	b = attribute(b, unix.IFLA_MASTER, number(uint32(bridge))...)
	b = attribute(b, unix.IFLA_MTU, number(uint32(mtu))...)
	b = attribute(b, unix.IFLA_LINKINFO, info...)
	return request{"make the interface pair " + host, unix.RTM_NEWLINK, unix.NLM_F_CREATE | unix.NLM_F_EXCL, b}
}

// setHairpin lets the bridge send a frame back through the port it came from.
// With br_netfilter a container's packet to its own published port is
// redirected while it is still a frame, and would be dropped.
func setHairpin(name string) request {
	info := attribute(nil, unix.IFLA_INFO_SLAVE_KIND, []byte("bridge")...)
	info = attribute(info, unix.IFLA_INFO_SLAVE_DATA, attribute(nil, unix.IFLA_BRPORT_MODE, 1)...)
	b := attribute(linkHeader(0, false), unix.IFLA_IFNAME, text(name)...)
	b = attribute(b, unix.IFLA_LINKINFO, info...)
	return request{"set hairpin mode on " + name, unix.RTM_NEWLINK, 0, b}
}

// ignoreMulticasts ends a bridge's snooping of who wants which.
func ignoreMulticasts(index int) request {
	info := attribute(nil, unix.IFLA_INFO_KIND, []byte("bridge")...)
	info = attribute(info, unix.IFLA_INFO_DATA, attribute(nil, nl.IFLA_BR_MCAST_SNOOPING, 0)...)
	return request{"have the bridge not listen to multicasts", unix.RTM_NEWLINK, 0,
		attribute(linkHeader(index, false), unix.IFLA_LINKINFO, info...)}
}

// ignoreLinkLocal ends that a bridge learns from frames which are meant for
// bridges and not for others (LLDP and its like), Linux 4.20. No rule sees those
// before, and one behind a port could say there that a neighbour is.
func ignoreLinkLocal(index int) request {
	on := binary.NativeEndian.AppendUint32(nil, 1<<noLinkLocalLearn)
	info := attribute(nil, unix.IFLA_INFO_KIND, []byte("bridge")...)
	info = attribute(info, unix.IFLA_INFO_DATA, attribute(nil, unix.IFLA_BR_MULTI_BOOLOPT, append(on, on...)...)...)
	return request{"have the bridge learn nothing from frames for bridges", unix.RTM_NEWLINK, 0,
		attribute(linkHeader(index, false), unix.IFLA_LINKINFO, info...)}
}

// noLinkLocalLearn is BR_BOOLOPT_NO_LL_LEARN, linux/if_bridge.h.
const noLinkLocalLearn = 0

func setUp(name string) request {
	return request{"bring up " + name, unix.RTM_NEWLINK, 0,
		attribute(linkHeader(0, true), unix.IFLA_IFNAME, text(name)...)}
}

func setMAC(index int, mac []byte) request {
	return request{"set the MAC address", unix.RTM_NEWLINK, 0,
		attribute(linkHeader(index, false), unix.IFLA_ADDRESS, mac...)}
}

func setGroup(name string, group uint32) request {
	b := attribute(linkHeader(0, false), unix.IFLA_IFNAME, text(name)...)
	return request{"group " + name, unix.RTM_NEWLINK, 0, attribute(b, unix.IFLA_GROUP, number(group)...)}
}

// deleteGroup deletes all interfaces of a group, with one wait of the kernel
// for all of them.
func deleteGroup(group uint32) request {
	return request{"delete interfaces", unix.RTM_DELLINK, 0,
		attribute(linkHeader(0, false), unix.IFLA_GROUP, number(group)...)}
}

func setUpIndex(index int) request {
	return request{"bring up the interface", unix.RTM_NEWLINK, 0, linkHeader(index, true)}
}

// rename gives an interface that is down another name.
func rename(index int, name string) request {
	return request{"name the interface " + name, unix.RTM_NEWLINK, 0,
		attribute(linkHeader(index, false), unix.IFLA_IFNAME, text(name)...)}
}

// moveLink moves an interface to another namespace, under a name.
func moveLink(index, nsFD int, name string) request {
	b := attribute(linkHeader(index, false), unix.IFLA_NET_NS_FD, number(uint32(nsFD))...)
	return request{"move the interface " + name, unix.RTM_NEWLINK, 0, attribute(b, unix.IFLA_IFNAME, text(name)...)}
}

func deleteLink(index int) request {
	return request{"delete the interface", unix.RTM_DELLINK, 0, linkHeader(index, false)}
}

func family(a netip.Addr) byte {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// addAddress gives an interface an address. One of IPv6 is in use at once:
// nobody else on the network has it, so it is not asked after.
func addAddress(index int, p netip.Prefix) request {
	addr := p.Addr().AsSlice()
	var flags byte
	if p.Addr().Is6() {
		flags = unix.IFA_F_NODAD
	}
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if p.Addr().IsLinkLocalUnicast() {
		scope = unix.RT_SCOPE_LINK
	}
	b := []byte{family(p.Addr()), byte(p.Bits()), flags, scope}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = attribute(b, unix.IFA_LOCAL, addr...)
	b = attribute(b, unix.IFA_ADDRESS, addr...)
	if p.Addr().Is4() && p.Bits() < 31 {
		b = attribute(b, unix.IFA_BROADCAST, ipam.Last(p).AsSlice()...)
	}
	return request{"add the address " + p.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE | unix.NLM_F_EXCL, b}
}

// routeMessage is a route to a destination, the default one if that is not
// valid, by way of a gateway unless that is not valid. The gateway is on the
// link whatever its address.
func routeMessage(index int, to netip.Prefix, gateway netip.Addr) []byte {
	family, scope, flags := family(gateway), byte(unix.RT_SCOPE_UNIVERSE), uint32(0)
	if to.IsValid() && to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if gateway.IsValid() {
		flags = unix.RTNH_F_ONLINK
	} else if family == unix.AF_INET {
		scope = unix.RT_SCOPE_LINK
	}
	b := []byte{family, byte(max(to.Bits(), 0)), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST}
	b = binary.NativeEndian.AppendUint32(b, flags)
	if to.Bits() > 0 {
		b = attribute(b, unix.RTA_DST, to.Masked().Addr().AsSlice()...)
	}
	if gateway.IsValid() {
		b = attribute(b, unix.RTA_GATEWAY, gateway.AsSlice()...)
	}
	return attribute(b, unix.RTA_OIF, number(uint32(index))...)
}

func addRoute(index int, r Route) request {
	return request{"add the route to " + r.Destination.String(), unix.RTM_NEWROUTE, unix.NLM_F_CREATE | unix.NLM_F_REPLACE, routeMessage(index, r.Destination, r.Gateway)}
}

// setDefaultRoute replaces the default route of the gateway's family.
func setDefaultRoute(index int, gateway netip.Addr) request {
	return request{"set the default route", unix.RTM_NEWROUTE, unix.NLM_F_CREATE | unix.NLM_F_REPLACE, routeMessage(index, netip.Prefix{}, gateway)}
}
