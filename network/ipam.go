package network

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/tarehq/tare/fault"
)

// DefaultPools are Docker's: /16 networks from 172.17.0.0 to 172.31.0.0, then
// /20 networks in 192.168.0.0/16.
func DefaultPools() []Pool {
	cut := func(base string, size int) Pool { return Pool{netip.MustParsePrefix(base), size} }
	return []Pool{
		cut("172.17.0.0/16", 16), cut("172.18.0.0/15", 16), cut("172.20.0.0/14", 16),
		cut("172.24.0.0/14", 16), cut("172.28.0.0/14", 16), cut("192.168.0.0/16", 20),
	}
}

// freeSubnet returns the first subnet of the pools that overlaps none of used.
func freeSubnet(pools []Pool, used []netip.Prefix) (netip.Prefix, error) {
	for _, p := range pools {
		if !p.Base.Addr().Is4() {
			return netip.Prefix{}, fault.New(fault.NotImplemented, "IPv6 address pools are not supported yet: %s", p.Base)
		}
		if p.Size < p.Base.Bits() || p.Size > 30 {
			return netip.Prefix{}, fault.New(fault.Invalid, "invalid address pool %s: its networks' size must be between %d and 30, not %d", p.Base, p.Base.Bits(), p.Size)
		}
		for i := range 1 << (p.Size - p.Base.Bits()) {
			subnet := netip.PrefixFrom(addrAt(p.Base.Masked().Addr(), uint32(i)<<(32-p.Size)), p.Size)
			if !overlapsAny(subnet, used) {
				return subnet, nil
			}
		}
	}
	return netip.Prefix{}, fault.New(fault.Unavailable, "all predefined address pools have been fully subnetted: every one overlaps a route of this host; name a free one by --bip")
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

// addrAt returns the IPv4 address n after a.
func addrAt(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

// lastAddr returns the prefix's last address, its broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	return addrAt(p.Masked().Addr(), 1<<(32-p.Bits())-1)
}

// addresses hands out the addresses of one subnet. It goes round: an address
// that was given back is taken again only after all others have had their
// turn, so that a peer's stale knowledge of it has faded.
type addresses struct {
	mu      sync.Mutex
	subnet  netip.Prefix
	gateway netip.Addr
	used    map[netip.Addr]bool
	next    netip.Addr
}

func newAddresses(gateway netip.Prefix) *addresses {
	subnet := gateway.Masked()
	return &addresses{subnet: subnet, gateway: gateway.Addr(), used: map[netip.Addr]bool{}, next: subnet.Addr().Next()}
}

// take returns the next free address.
func (a *addresses) take() (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range uint32(1) << (32 - a.subnet.Bits()) {
		addr := a.next
		a.next = addr.Next()
		if !a.subnet.Contains(a.next) {
			a.next = a.subnet.Addr()
		}
		if a.usable(addr) && !a.used[addr] {
			a.used[addr] = true
			return addr, nil
		}
	}
	return netip.Addr{}, fault.New(fault.Unavailable, "no available IPv4 addresses on this network's address pools: all of %s are in use", a.subnet)
}

// claim takes a certain address.
func (a *addresses) claim(addr netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.usable(addr) {
		return fault.New(fault.Invalid, "address %s cannot be given to a container of the network %s", addr, a.subnet)
	}
	if a.used[addr] {
		return fault.New(fault.Conflict, "Address already in use")
	}
	a.used[addr] = true
	return nil
}

// resume continues after the highest address that is in use, as if the
// addresses had been taken in order.
func (a *addresses) resume() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for addr := range a.used {
		if !addr.Less(a.next) && a.subnet.Contains(addr.Next()) {
			a.next = addr.Next()
		}
	}
}

func (a *addresses) release(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, addr)
}

// usable tells whether a container may have the address: not the network's
// own, not the broadcast address, not the bridge's.
func (a *addresses) usable(addr netip.Addr) bool {
	return a.subnet.Contains(addr) && addr != a.subnet.Addr() && addr != lastAddr(a.subnet) && addr != a.gateway
}
