package link

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Announce tells the neighbours of the space's interface which MAC address the
// addresses are at, if someone may have had them before under another. It is a
// courtesy: what fails shows only where a neighbour remembers, and fades there.
func (s *Space) Announce(name, mac string, addresses ...netip.Prefix) {
	hardware, err := net.ParseMAC(mac)
	if err != nil {
		return
	}
	index, err := s.routes.index(name)
	if err != nil {
		return
	}
	_ = s.enter(func() error { return sendAnnouncements(index, hardware, addresses) })
}

// sendAnnouncements sends, in the calling thread's namespace, a gratuitous ARP
// request (RFC 5227) and an unsolicited neighbour advertisement (RFC 4861,
// 7.2.6).
func sendAnnouncements(index int, mac net.HardwareAddr, addresses []netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer unix.Close(fd)
	var frames [][]byte
	for _, a := range addresses {
		switch {
		case a.IsValid() && a.Addr().Is4():
			frames = append(frames, gratuitousARP(mac, a.Addr()))
		case a.IsValid():
			frames = append(frames, unsolicitedNA(mac, a.Addr()))
		}
	}
	for _, f := range frames {
		if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
			return err
		}
	}
	return nil
}

func gratuitousARP(mac net.HardwareAddr, a netip.Addr) []byte {
	f := ethernet(mac, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths, a request
	f = append(f, mac...)
	f = append(f, a.AsSlice()...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	return append(f, a.AsSlice()...)
}

func unsolicitedNA(mac net.HardwareAddr, a netip.Addr) []byte {
	all := netip.MustParseAddr("ff02::1")
	const override = 0x20
	icmp := []byte{136, 0, 0, 0, override, 0, 0, 0}
	icmp = append(icmp, a.AsSlice()...)
	icmp = append(icmp, 2, 1) // the target's link-layer address, 8 bytes
	icmp = append(icmp, mac...)
	binary.BigEndian.PutUint16(icmp[2:], icmpChecksum(a, all, icmp))

	f := ethernet(mac, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255)
	f = append(f, a.AsSlice()...)
	f = append(f, all.AsSlice()...)
	return append(f, icmp...)
}

func ethernet(from, to net.HardwareAddr, protocol uint16) []byte {
	f := append(make([]byte, 0, 96), to...)
	f = append(f, from...)
	return binary.BigEndian.AppendUint16(f, protocol)
}

// icmpChecksum is RFC 4443's, over the pseudo header too.
func icmpChecksum(from, to netip.Addr, icmp []byte) uint16 {
	b := append(from.AsSlice(), to.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(icmp)))
	b = append(b, 0, 0, 0, unix.IPPROTO_ICMPV6)
	b = append(b, icmp...)
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
