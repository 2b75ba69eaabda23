package firewall

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// frames are made here by hand; each ends in a mark by which it is known again.

func ether(to, from net.HardwareAddr, typ uint16, payload []byte) []byte {
	b := append(append([]byte{}, to...), from...)
	return append(binary.BigEndian.AppendUint16(b, typ), payload...)
}

// tagged puts empty VLAN tags before a frame's payload, behind the first's type.
func tagged(tags int, typ uint16, payload []byte) []byte {
	b := []byte{0, 0}
	for range tags - 1 {
		b = append(binary.BigEndian.AppendUint16(b, unix.ETH_P_8021Q), 0, 0)
	}
	return append(binary.BigEndian.AppendUint16(b, typ), payload...)
}

func sum(b []byte) uint16 {
	var n uint32
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		n += uint32(b[len(b)-1]) << 8
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

func ip4(from, to netip.Addr, proto byte, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], sum(b))
	return append(b, payload...)
}

func ip6(from, to netip.Addr, next byte, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	return append(append(append(b, from.AsSlice()...), to.AsSlice()...), payload...)
}

func udp(from, to uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...)
}

// icmpv6 fills in the checksum, without which the kernel would not look.
func icmpv6(from, to netip.Addr, message []byte) []byte {
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, 0, 0, byte(len(message)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	message[2], message[3] = 0, 0
	binary.BigEndian.PutUint16(message[2:], sum(append(pseudo, message...)))
	return ip6(from, to, unix.IPPROTO_ICMPV6, message)
}

func arp(op uint16, mac net.HardwareAddr, ip netip.Addr, target net.HardwareAddr, targetIP netip.Addr, mark []byte) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(append(append(b, mac...), ip.AsSlice()...), target...), targetIP.AsSlice()...)
	return append(b, mark...)
}

// arrives tells whether a frame with the mark comes within a while.
func arrives(fd int, mark []byte, patience time.Duration) bool {
	buf := make([]byte, 2048)
	for deadline, first := time.Now().Add(patience), true; first || time.Now().Before(deadline); first = false {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 10); n == 0 || err != nil {
			continue
		}
		if n, err := unix.Read(fd, buf); err == nil && bytes.Contains(buf[:n], mark) {
			return true
		}
	}
	return false
}

func TestNobodySpeaksForANeighbour(t *testing.T) {
	if !asHost(t) {
		return
	}
	mustSet(t, "bridge/bridge-nf-call-iptables", "0") // a host may have no br_netfilter
	mustSet(t, "bridge/bridge-nf-call-ip6tables", "0")
	l := newLab(t)
	nobodySpeaksForANeighbour(t, l)
}

func TestNobodySpeaksForANeighbourByTheShortcut(t *testing.T) {
	if !asHost(t) {
		return
	}
	l := newLab(t)
	l.options.Shortcut = true
	nobodySpeaksForANeighbour(t, l)
	if !l.firewall.made[Netdev] {
		t.Error("the kernel did not take the shortcut")
	}
}

func nobodySpeaksForANeighbour(t *testing.T, l *lab) {
	router := addr("10.0.1.254")
	one, two := l.network("one", 1, func(n *Network) { n.Routers = []netip.Addr{router, addr("fd00:1::fe")} }), l.network("two", 2, nil)
	victim, thief, neighbour := l.container(one, 2), l.container(one, 3), l.container(one, 4)
	elsewhere := l.container(two, 5)
	l.apply()
	own4, own6 := thief.place.Addresses[0], thief.place.Addresses[1]
	his4, his6 := neighbour.place.Addresses[0], neighbour.place.Addresses[1]
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	group := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	allNodes := addr("ff02::1")
	gateway, _ := net.ParseMAC(one.MAC)
	to4, to6 := victim.place.Addresses[0], victim.place.Addresses[1]
	link := linkLocal(thief.place.MAC)[0]
	advert := func(typ byte, target netip.Addr, mark []byte) []byte {
		b := append([]byte{typ, 0, 0, 0, 0x60, 0, 0, 0}, target.AsSlice()...)
		return append(append(b, 2, 1), append(append([]byte{}, thief.mac...), mark...)...)
	}
	solicit := func(typ byte, mark []byte) []byte {
		return append([]byte{typ, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, mark...)
	}
	ear, other := victim.hears(t), elsewhere.hears(t)
	for _, c := range []struct {
		name    string
		arrives bool
		frame   func(mark []byte) []byte
	}{
		{"its own packet", true, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IP, ip4(own4, to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"a neighbour's address", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IP, ip4(his4, to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"a neighbour's MAC address and address", false, func(m []byte) []byte {
			return ether(victim.mac, neighbour.mac, unix.ETH_P_IP, ip4(his4, to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"a neighbour's MAC address", false, func(m []byte) []byte {
			return ether(victim.mac, neighbour.mac, unix.ETH_P_IP, ip4(own4, to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"the gateway's MAC address", false, func(m []byte) []byte {
			return ether(victim.mac, gateway, unix.ETH_P_IP, ip4(own4, to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"the gateway's address", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IP, ip4(one.Gateway4, to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"the address of a container elsewhere", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IP, ip4(elsewhere.place.Addresses[0], to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		// The bridge does not know that address, and tries all of its ports.
		{"to a container elsewhere", true, func(m []byte) []byte {
			return ether(elsewhere.mac, thief.mac, unix.ETH_P_IP, ip4(own4, elsewhere.place.Addresses[0], unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"an address that is nobody's", true, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IP, ip4(addr("10.0.1.99"), to4, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"an offer of DHCP", false, func(m []byte) []byte {
			return ether(all, thief.mac, unix.ETH_P_IP, ip4(own4, addr("255.255.255.255"), unix.IPPROTO_UDP, udp(67, 68, m)))
		}},
		{"an offer of DHCP to one", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IP, ip4(own4, to4, unix.IPPROTO_UDP, udp(67, 68, m)))
		}},
		{"its own ARP answer", true, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_ARP, arp(2, thief.mac, own4, victim.mac, to4, m))
		}},
		{"an ARP answer for a neighbour", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_ARP, arp(2, thief.mac, his4, victim.mac, to4, m))
		}},
		{"a gratuitous ARP for the gateway", false, func(m []byte) []byte {
			return ether(all, thief.mac, unix.ETH_P_ARP, arp(1, thief.mac, one.Gateway4, all, one.Gateway4, m))
		}},
		{"an ARP answer for the router", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_ARP, arp(2, thief.mac, router, victim.mac, to4, m))
		}},
		{"an ARP answer with a neighbour's MAC address", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_ARP, arp(2, neighbour.mac, his4, victim.mac, to4, m))
		}},
		// The kernel takes off as many empty tags as it finds.
		{"an ARP answer for a neighbour behind an empty tag", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_8021Q, tagged(1, unix.ETH_P_ARP, arp(2, thief.mac, his4, victim.mac, to4, m)))
		}},
		{"an ARP answer for a neighbour behind two empty tags", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_8021Q, tagged(2, unix.ETH_P_ARP, arp(2, thief.mac, his4, victim.mac, to4, m)))
		}},
		{"a neighbour's address behind three empty tags", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_8021AD, tagged(3, unix.ETH_P_IP, ip4(his4, to4, unix.IPPROTO_UDP, udp(5, 9, m))))
		}},
		{"its own packet, IPv6", true, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, ip6(own6, to6, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"from its address of the link", true, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, ip6(link, to6, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"a neighbour's address, IPv6", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, ip6(his6, to6, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"a neighbour's address of the link", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, ip6(linkLocal(neighbour.place.MAC)[0], to6, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"the gateway's address, IPv6", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, ip6(one.Gateway6, to6, unix.IPPROTO_UDP, udp(5, 9, m)))
		}},
		{"its own neighbour advertisement", true, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, icmpv6(own6, to6, advert(neighbourAdvert, own6, m)))
		}},
		{"a neighbour's advertisement", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, icmpv6(own6, to6, advert(neighbourAdvert, his6, m)))
		}},
		{"the gateway's advertisement", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, icmpv6(own6, to6, advert(neighbourAdvert, one.Gateway6, m)))
		}},
		{"the router's advertisement of itself as a neighbour", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, icmpv6(own6, to6, advert(neighbourAdvert, addr("fd00:1::fe"), m)))
		}},
		{"a redirect", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, icmpv6(link, to6, advert(redirectMessage, his6, m)))
		}},
		{"a router advertisement", false, func(m []byte) []byte {
			return ether(group, thief.mac, unix.ETH_P_IPV6, icmpv6(link, allNodes, solicit(routerAdvert, m)))
		}},
		{"a router advertisement behind options", false, func(m []byte) []byte {
			plain := icmpv6(link, allNodes, solicit(routerAdvert, m))
			hop := append([]byte{unix.IPPROTO_ICMPV6, 0, 1, 4, 0, 0, 0, 0}, plain[40:]...)
			return ether(group, thief.mac, unix.ETH_P_IPV6, ip6(link, allNodes, 0, hop))
		}},
		{"an answer of DHCPv6", false, func(m []byte) []byte {
			return ether(victim.mac, thief.mac, unix.ETH_P_IPV6, ip6(link, to6, unix.IPPROTO_UDP, udp(547, 546, m)))
		}},
	} {
		mark := []byte("mark of " + c.name + ".")
		thief.send(t, c.frame(mark))
		patience := 100 * time.Millisecond
		if c.arrives {
			patience = 3 * time.Second
		}
		if got := arrives(ear, mark, patience); got != c.arrives {
			t.Errorf("%s: arrives %v", c.name, got)
		}
		if arrives(other, mark, 0) {
			t.Errorf("%s: arrives in another network", c.name)
		}
	}
}

func TestClosedNeighboursHearNothing(t *testing.T) {
	if !asHost(t) {
		return
	}
	l := newLab(t)
	shut := l.network("shut", 1, func(n *Network) { n.ICC = false })
	victim, other := l.container(shut, 2, Port{any4, 8080, 80, "tcp"}, Port{any6, 8080, 80, "tcp"}), l.container(shut, 3)
	outside := l.lan("lan0", 2)
	victim.serve(t, 80, "victim")
	outside.serve(t, 80, "outside")
	l.apply()
	for _, call := range []string{"0", "1"} { // without br_netfilter, and with it
		mustSet(t, "bridge/bridge-nf-call-iptables", call)
		mustSet(t, "bridge/bridge-nf-call-ip6tables", call)
		other.expectNothing(t, "tcp", "10.0.1.2:80")
		other.expectNothing(t, "udp", "10.0.1.2:80")
		other.expectNothing(t, "tcp", "[fd00:1::2]:80")
		// By the gateway too, to which a container may send what it likes.
		ear := victim.hears(t)
		gateway, _ := net.ParseMAC(shut.MAC)
		mark := []byte("by the gateway")
		other.send(t, ether(gateway, other.mac, unix.ETH_P_IP, ip4(other.place.Addresses[0], victim.place.Addresses[0], unix.IPPROTO_UDP, udp(5, 9, mark))))
		if arrives(ear, mark, 100*time.Millisecond) {
			t.Error("a packet arrives by way of the gateway")
		}
		// What is published is published for all, and the way out is open.
		other.expect(t, "tcp", "192.0.2.1:8080", "victim 10.0.1.1")
		other.expect(t, "tcp", "192.0.2.2:80", "outside 192.0.2.1")
		other.expect(t, "tcp", "[2001:db8:2::1]:8080", "victim fd00:1::1")
		machine{}.expect(t, "tcp", "10.0.1.2:80", "victim 10.0.1.1")
	}
}

func mustSet(t testing.TB, name, value string) {
	t.Helper()
	must(t, ensureSysctl(name, value))
}
