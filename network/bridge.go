package network

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/ipam"
)

// bridge is an interface as it shall be, and as it stands.
type bridge struct {
	name               string
	index              int // once it is up
	mtu                int
	mac                net.HardwareAddr  // of one that is ours
	found              string            // the MAC address that it has
	address4, address6 netip.Prefix      // with the host's bits; invalid for none
	internal           bool              // nothing is forwarded for it
	open               bool              // the guard shall drop nothing, see package firewall
	guarded            []firewall.Family // it stands
	foreign            bool              // somebody else made the interface
}

// raise makes the bridge or takes the one that is there, and tells whether it
// made it. One that somebody else made, who may have the host's own network on
// it, keeps what it has: its addresses, IPv6 and its MTU.
func (b *bridge) raise() (made bool, err error) {
	link, err := netlink.LinkByName(b.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if link, err = b.add(); err != nil {
			return false, err
		}
		made = true
	}
	if err != nil {
		return false, fmt.Errorf("look for the interface %s: %w", b.name, err)
	}
	if link.Type() != "bridge" {
		return false, fault.New(fault.Conflict, "the interface %s is a %s and not a bridge: choose another name", b.name, link.Type())
	}
	b.index, b.found = link.Attrs().Index, link.Attrs().HardwareAddr.String()
	if b.foreign = !bytes.Equal(link.Attrs().HardwareAddr, b.mac); b.foreign {
		b.mtu = min(b.mtu, link.Attrs().MTU)
	}
	if err = b.prepare(link); err == nil && !b.internal {
		err = b.allowForwarding()
	}
	if err != nil && made {
		err = errors.Join(err, lowerBridge(b.name))
	}
	return made, err
}

// allowForwarding makes the host forward in the bridge's families.
func (b *bridge) allowForwarding() error {
	for family, subnet := range map[firewall.Family]netip.Prefix{firewall.IP4: b.address4, firewall.IP6: b.address6} {
		if !subnet.IsValid() {
			continue
		}
		guarded, err := firewall.AllowForwarding(b.name, family, b.open)
		if err != nil {
			return err
		}
		if guarded {
			b.guarded = append(b.guarded, family)
		}
	}
	return nil
}

func (b *bridge) add() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = b.name, b.mtu, b.mac
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make the bridge %s: %w", b.name, err)
	}
	return netlink.LinkByName(b.name)
}

// bridgeMAC is the address that a bridge of our making has, and by which it is
// known again. Without one of its own a bridge takes the lowest of its ports'
// and changes it as they come and go, which containers' ARP tables miss.
func bridgeMAC(owner, name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(owner + "\x00" + name))
	return append(net.HardwareAddr{0x02, 0x42}, sum[:4]...)
}

// lowerBridge deletes a bridge; one that is not there is no error. Its place in
// the guard goes first, so that after a crash the bridge tells what is left.
func lowerBridge(name string) error {
	if err := firewall.LeaveGuard(name); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete the bridge %s: %w", name, err)
	}
	return nil
}

// prepare gives the interface its addresses and settings and brings it up.
func (b *bridge) prepare(link netlink.Link) error {
	settings := [][2]string{}
	if b.address4.IsValid() {
		// route_localnet lets a connection to 127.0.0.1 be redirected to the
		// bridge; the table's chain raw takes over the check that it disables.
		settings = append(settings, [2]string{"ipv4/conf/" + b.name + "/route_localnet", "1"})
	}
	conf6 := "ipv6/conf/" + b.name
	switch {
	case b.address6.IsValid():
		settings = append(settings, [2]string{conf6 + "/accept_ra", "0"}, [2]string{conf6 + "/accept_dad", "0"}, [2]string{conf6 + "/disable_ipv6", "0"})
	case !b.foreign:
		settings = append(settings, [2]string{conf6 + "/disable_ipv6", "1"})
	}
	for _, s := range settings {
		if err := ensureSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	for family, want := range map[int]netip.Prefix{unix.AF_INET: b.address4, unix.AF_INET6: b.address6} {
		if err := b.address(link, family, want); err != nil {
			return err
		}
	}
	if !b.foreign && link.Attrs().MTU != b.mtu {
		if err := netlink.LinkSetMTU(link, b.mtu); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", b.name, b.mtu, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", b.name, err)
	}
	return nil
}

// address makes sure that the bridge has the address that is wanted and, if it
// is ours, no other of the family.
func (b *bridge) address(link netlink.Link, family int, want netip.Prefix) error {
	present, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", b.name, err)
	}
	present = slices.DeleteFunc(present, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() && a.IP.To4() == nil })
	found := slices.ContainsFunc(present, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == want })
	if b.foreign && want.IsValid() && !found && len(present) > 0 {
		return fault.New(fault.Conflict, "the bridge %s was not made by tared and does not have the address %s, but %s: give it that address, or leave the address out", b.name, want, present[0].IPNet)
	}
	for _, a := range present {
		if b.foreign || prefixOf(a.IPNet) == want {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove the address %s of %s: %w", a.IPNet, b.name, err)
		}
	}
	if !want.IsValid() || found {
		return nil
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: want.Addr().AsSlice(), Mask: net.CIDRMask(want.Bits(), want.Addr().BitLen())}}
	if family == unix.AF_INET && want.Bits() < 31 {
		addr.Broadcast = ipam.Last(want).AsSlice()
	} else if family == unix.AF_INET6 {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", b.name, want, err)
	}
	return nil
}

// addressOf gives the first address of the family that an interface has,
// invalid without one or without the interface.
func addressOf(name string, family int) (netip.Prefix, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return netip.Prefix{}, nil
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("look for the interface %s: %w", name, err)
	}
	present, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list the addresses of %s: %w", name, err)
	}
	for _, a := range present {
		if p := prefixOf(a.IPNet); p.IsValid() && !p.Addr().IsLinkLocalUnicast() {
			return p, nil
		}
	}
	return netip.Prefix{}, nil
}

// hostRoute is a route of the host and the interface that it goes through.
type hostRoute struct {
	destination netip.Prefix
	device      int
}

// hostRoutes are the host's routes of the family but for the default ones.
func hostRoutes(family int) ([]hostRoute, error) {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	var out []hostRoute
	for _, r := range routes {
		p := prefixOf(r.Dst)
		if p.IsValid() && p.Bits() > 0 && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() {
			out = append(out, hostRoute{p.Masked(), r.LinkIndex})
		}
	}
	return out, nil
}

// avoided are the ranges that no subnet is chosen from: what the host has routes
// to, and its name servers.
func avoided(family int) ([]netip.Prefix, error) {
	routes, err := hostRoutes(family)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		out = append(out, r.destination)
	}
	conf, err := HostResolvConf()
	if err != nil {
		return nil, err
	}
	for _, n := range parseResolvConf(conf).nameservers {
		if a, err := netip.ParseAddr(n); err == nil && !a.IsLoopback() {
			out = append(out, netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen()))
		}
	}
	return out, nil
}

// whole asks again when something on the host has changed while the kernel
// listed it, which makes a list useless.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 100 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// prefixOf converts a net; the zero Prefix stands for none.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if addr = addr.Unmap(); !ok || size != addr.BitLen() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, bits)
}

// ensureSysctl writes only what differs: writing ip_forward resets other
// settings of the interfaces, and /proc/sys may be read-only where all is set.
func ensureSysctl(name, value string) error {
	if have, err := os.ReadFile("/proc/sys/net/" + name); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	return writeSysctl(name, value)
}
