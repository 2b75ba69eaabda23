package link

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/ipam"
)

// Bridge is one as it shall be, and as it stands once it is raised.
type Bridge struct {
	Name               string
	Index              int // once it is up
	MTU                int
	MAC                net.HardwareAddr // of one that is ours
	Found              string           // the MAC address that it has
	Address4, Address6 netip.Prefix     // with the host's bits; invalid for none
	Foreign            bool             // somebody else made the interface
	Unruled            bool             // no table checks who speaks from the loopback addresses
}

// Raise makes the bridge or takes the one that is there, and tells whether it
// made it. One that somebody else made, who may have the host's own network on
// it, keeps what it has: its addresses, IPv6 and its MTU.
func (b *Bridge) Raise() (made bool, err error) {
	link, err := netlink.LinkByName(b.Name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if link, err = b.add(); err != nil {
			return false, err
		}
		made = true
	}
	if err != nil {
		return false, fmt.Errorf("look for the interface %s: %w", b.Name, err)
	}
	if link.Type() != "bridge" {
		return false, fault.New(fault.Conflict, "the interface %s is a %s and not a bridge: choose another name", b.Name, link.Type())
	}
	b.Index, b.Found = link.Attrs().Index, link.Attrs().HardwareAddr.String()
	if b.Foreign = !bytes.Equal(link.Attrs().HardwareAddr, b.MAC); b.Foreign {
		b.MTU = min(b.MTU, link.Attrs().MTU)
	}
	if err = b.prepare(link); err != nil && made {
		err = errors.Join(err, LowerBridge(b.Name))
	}
	return made, err
}

// passingMTU is a bridge's until prepare sets the one that it shall have. The
// kernel looks through all ports for the smallest whenever one comes or goes, but
// not for a bridge whose MTU was changed: one that it was made with does not count.
const passingMTU = 1500

func (b *Bridge) add() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = b.Name, passingMTU, b.MAC
	if b.MTU == passingMTU {
		attrs.MTU--
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make the bridge %s: %w", b.Name, err)
	}
	return netlink.LinkByName(b.Name)
}

// BridgeMAC is the address that a bridge of our making has, and by which it is
// known again. Without one of its own a bridge takes the lowest of its ports'
// and changes it as they come and go, which containers' ARP tables miss.
func BridgeMAC(owner, name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(owner + "\x00" + name))
	return append(net.HardwareAddr{0x02, 0x42}, sum[:4]...)
}

// LowerBridge deletes a bridge; one that is not there is no error.
func LowerBridge(name string) error {
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
func (b *Bridge) prepare(link netlink.Link) error {
	settings := [][2]string{}
	if b.Address4.IsValid() && !b.Unruled {
		// route_localnet lets a connection to 127.0.0.1 be redirected to the
		// bridge; the table's chain raw takes over the check that it disables.
		settings = append(settings, [2]string{"ipv4/conf/" + b.Name + "/route_localnet", "1"})
	}
	conf6 := "ipv6/conf/" + b.Name
	switch {
	case b.Address6.IsValid():
		settings = append(settings, [2]string{conf6 + "/accept_ra", "0"}, [2]string{conf6 + "/accept_dad", "0"}, [2]string{conf6 + "/disable_ipv6", "0"})
	case !b.Foreign:
		settings = append(settings, [2]string{conf6 + "/disable_ipv6", "1"})
	}
	for _, s := range settings {
		if err := ensureSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	for family, want := range map[int]netip.Prefix{unix.AF_INET: b.Address4, unix.AF_INET6: b.Address6} {
		if err := b.address(link, family, want); err != nil {
			return err
		}
	}
	if !b.Foreign && link.Attrs().MTU != b.MTU {
		if err := netlink.LinkSetMTU(link, b.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", b.Name, b.MTU, err)
		}
	}
	if err := b.setOptions(link); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", b.Name, err)
	}
	return nil
}

// setOptions has a bridge of ours learn only from frames that the rules see, and
// send multicasts to all of its ports, as it does anyway where nobody asks who
// wants them. Else the kernel sets the timers of every port anew whenever one comes
// or goes.
func (b *Bridge) setOptions(link netlink.Link) error {
	bridge, ok := link.(*netlink.Bridge)
	if b.Foreign || !ok {
		return nil
	}
	options := []request{ignoreLinkLocal(b.Index)}
	if bridge.MulticastSnooping != nil && *bridge.MulticastSnooping {
		options = append(options, ignoreMulticasts(b.Index))
	}
	routes, err := dial()
	if err != nil {
		return err
	}
	defer routes.close()
	return routes.do(options...)
}

// address makes sure that the bridge has the address that is wanted and, if it
// is ours, no other of the family.
func (b *Bridge) address(link netlink.Link, family int, want netip.Prefix) error {
	present, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, family) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", b.Name, err)
	}
	present = slices.DeleteFunc(present, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() && a.IP.To4() == nil })
	found := slices.ContainsFunc(present, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == want })
	if b.Foreign && want.IsValid() && !found && len(present) > 0 {
		return fault.New(fault.Conflict, "the bridge %s was not made by tared and does not have the address %s, but %s: give it that address, or leave the address out", b.Name, want, present[0].IPNet)
	}
	for _, a := range present {
		if b.Foreign || prefixOf(a.IPNet) == want {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove the address %s of %s: %w", a.IPNet, b.Name, err)
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
		return fmt.Errorf("give %s the address %s: %w", b.Name, want, err)
	}
	return nil
}

// AddressOf gives the first address of the family that an interface has,
// invalid without one or without the interface.
func AddressOf(name string, family int) (netip.Prefix, error) {
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

// HostRoute is a route of the host and the interface that it goes through.
type HostRoute struct {
	Destination netip.Prefix
	Device      int
}

// HostRoutes are the host's routes of the family but for the default ones.
func HostRoutes(family int) ([]HostRoute, error) {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	var out []HostRoute
	for _, r := range routes {
		p := prefixOf(r.Dst)
		if p.IsValid() && p.Bits() > 0 && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() {
			out = append(out, HostRoute{p.Masked(), r.LinkIndex})
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
