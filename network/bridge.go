package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewall"
)

// bridge is the interface as it stands.
type bridge struct {
	name    string
	index   int
	mtu     int
	mac     string
	address netip.Prefix // with the host's bits
	guarded bool         // the guard stands, see forward.go
	open    bool         // and shall drop nothing
}

// raiseBridge makes the bridge as configured or takes the one that is there,
// and tells whether it made it. One that an administrator made, who may have
// the host's own network on it, keeps what it has: its addresses, IPv6 and its
// MTU.
func raiseBridge(c Config) (b bridge, made bool, err error) {
	link, err := netlink.LinkByName(c.Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if link, err = addBridge(c); err != nil {
			return b, false, err
		}
		made = true
	}
	if err != nil {
		return b, false, fmt.Errorf("look for the interface %s: %w", c.Bridge, err)
	}
	if link.Type() != "bridge" {
		return b, false, fault.New(fault.Conflict, "the interface %s is a %s and not a bridge: choose another name by --bridge", c.Bridge, link.Type())
	}
	b = bridge{name: c.Bridge, index: link.Attrs().Index, mtu: c.MTU, open: c.ForwardAll, mac: link.Attrs().HardwareAddr.String()}
	ours := bytes.Equal(link.Attrs().HardwareAddr, bridgeMAC(c))
	if !ours {
		b.mtu = min(c.MTU, link.Attrs().MTU)
	}
	if b.address, err = giveAddress(link, c, ours); err == nil {
		err = prepareHost(link, c, ours)
	}
	if err == nil {
		b.guarded, err = firewall.AllowForwarding(c.Bridge, firewall.IP4, c.ForwardAll)
	}
	if err != nil && made {
		err = errors.Join(err, lowerBridge(c.Bridge))
	}
	return b, made, err
}

func addBridge(c Config) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = c.Bridge, c.MTU, bridgeMAC(c)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make the bridge %s: %w", c.Bridge, err)
	}
	return netlink.LinkByName(c.Bridge)
}

// bridgeMAC is the address that a bridge of our making has, and by which it is
// known again. Without one of its own a bridge takes the lowest of its ports'
// and changes it as they come and go, which containers' ARP tables miss.
func bridgeMAC(c Config) net.HardwareAddr {
	sum := sha256.Sum256([]byte(c.Name + "\x00" + c.Bridge))
	return append(net.HardwareAddr{0x02, 0x42}, sum[:4]...)
}

func lowerBridge(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// giveAddress makes sure that the bridge has the address it shall have, and if
// it is ours no other of IPv4, and returns it.
func giveAddress(link netlink.Link, c Config, ours bool) (netip.Prefix, error) {
	present, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, unix.AF_INET) })
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list the addresses of %s: %w", c.Bridge, err)
	}
	want := c.BIP
	if !want.IsValid() && len(present) > 0 {
		if want = prefixOf(present[0].IPNet); want.Bits() > 30 {
			return want, fault.New(fault.Conflict, "the address %s of the bridge %s leaves none for containers", want, c.Bridge)
		}
	}
	if !want.IsValid() {
		used, err := routedPrefixes()
		if err != nil {
			return want, err
		}
		subnet, err := freeSubnet(c.Pools, used)
		if err != nil {
			return want, err
		}
		want = netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits())
	}
	found := slices.ContainsFunc(present, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == want })
	if !ours && !found && len(present) > 0 {
		return want, fault.New(fault.Conflict, "the bridge %s was not made by tared and does not have the address %s, but %s: leave --bip out or give it that address", c.Bridge, want, present[0].IPNet)
	}
	for _, a := range present {
		if !ours || prefixOf(a.IPNet) == want {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return want, fmt.Errorf("remove the address %s of %s: %w", a.IPNet, c.Bridge, err)
		}
	}
	if !found {
		ipNet := &net.IPNet{IP: want.Addr().AsSlice(), Mask: net.CIDRMask(want.Bits(), 32)}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet, Broadcast: lastAddr(want).AsSlice()}); err != nil {
			return want, fmt.Errorf("give %s the address %s: %w", c.Bridge, want, err)
		}
	}
	return want, nil
}

// routedPrefixes are the destinations of the host's IPv4 routes but for the
// default.
func routedPrefixes() ([]netip.Prefix, error) {
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range routes {
		if p := prefixOf(r.Dst); p.IsValid() && p.Bits() > 0 {
			out = append(out, p)
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

// prefixOf converts an IPv4 net; the zero Prefix stands for any other.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	if addr = addr.Unmap(); !ok || !addr.Is4() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, bits)
}

// prepareHost brings the bridge up.
func prepareHost(link netlink.Link, c Config, ours bool) error {
	// route_localnet lets a connection to 127.0.0.1 be redirected to the
	// bridge; the table's chain raw takes over the check that it disables.
	settings := [][2]string{{"ipv4/conf/" + c.Bridge + "/route_localnet", "1"}}
	if ours {
		settings = append(settings, [2]string{"ipv6/conf/" + c.Bridge + "/disable_ipv6", "1"})
	}
	for _, s := range settings {
		if err := ensureSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	if ours && link.Attrs().MTU != c.MTU {
		if err := netlink.LinkSetMTU(link, c.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s to %d: %w", c.Bridge, c.MTU, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", c.Bridge, err)
	}
	return nil
}

// ensureSysctl writes only what differs: writing ip_forward resets other
// settings of the interfaces, and /proc/sys may be read-only where all is set.
func ensureSysctl(name, value string) error {
	if have, err := os.ReadFile("/proc/sys/net/" + name); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	return writeSysctl(name, value)
}

// refuseStrangers fails when containers are on the bridge that a daemon of
// another identity left running: their addresses are not known here, and their
// published ports would go with the table.
func (s *Service) refuseStrangers(ctx context.Context) error {
	known := s.interfaces()
	for deadline := time.Now().Add(claimPatience); ; {
		name, err := s.stranger(known)
		if name == "" || err != nil {
			return err
		}
		// Those of a daemon that was just killed vanish in the kernel's own time.
		if time.Now().After(deadline) || !pause(ctx, 10*time.Millisecond) {
			return fault.New(fault.Conflict, "containers of a tared with another data root are on the bridge %s (%s): end them, or choose another bridge by --bridge", s.bridge.name, name)
		}
	}
}

// stranger finds an interface on the bridge that another identity made; "" is
// none.
func (s *Service) stranger(known map[string]bool) (string, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return "", fmt.Errorf("list the interfaces: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() == "veth" && a.MasterIndex == s.bridge.index && strings.HasPrefix(a.Name, interfaceMark) && len(a.Name) == unix.IFNAMSIZ-1 &&
			!strings.HasPrefix(a.Name, s.prefix) && !known[a.Name] {
			return a.Name, nil
		}
	}
	return "", nil
}

// interfaces are the names of the endpoints' ends on the bridge.
func (s *Service) interfaces() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for _, b := range s.sandboxes {
		for _, e := range b.Endpoints {
			names[e.HostInterface] = true
		}
	}
	return names
}

// reconcilePorts compares the bridge's ports with the endpoints: it gives
// those that no endpoint names for removal, and puts back on the bridge those
// that lost it when it was made anew.
func (s *Service) reconcilePorts() (orphans []removal, err error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	wanted := s.interfaces()
	for _, l := range links {
		a := l.Attrs()
		ours := strings.HasPrefix(a.Name, s.prefix) && l.Type() == "veth" && (a.MasterIndex == s.bridge.index || a.MasterIndex == 0)
		switch {
		case ours && !wanted[a.Name]:
			orphans = append(orphans, removal{host: a.Name})
		case ours && a.MasterIndex == 0:
			if err := netlink.LinkSetMasterByIndex(l, s.bridge.index); err != nil {
				return nil, fmt.Errorf("put %s back on %s: %w", a.Name, s.bridge.name, err)
			}
			if err := s.routes.do(setHairpin(a.Name)); err != nil {
				return nil, err
			}
		}
	}
	return orphans, nil
}
