// Package ipam gives out subnets and the addresses in them, of both families.
// Nothing is enumerated and nothing stored here: a Space is filled again from
// what others have stored, and what it costs grows with what is taken, not with
// the size of a subnet.
package ipam

import (
	"math/bits"
	"net/netip"
	"sync"

	"github.com/tarehq/tare/fault"
)

// Pool is a range that is cut into subnets of Size bits.
type Pool struct {
	Base netip.Prefix
	Size int
}

// Space is the subnets of one host, of which no two overlap. Its methods may
// be called at the same time.
type Space struct {
	pools []Pool

	mu    sync.Mutex
	taken map[netip.Prefix]*addresses
}

// addresses are those in use of a subnet, which may have several ranges.
type addresses struct {
	mu     sync.Mutex
	used   map[netip.Addr]bool
	last   netip.Addr     // that was given back
	ranges []netip.Prefix // guarded by the space's lock
}

// Subnet is one that was taken. Its methods may be called at the same time.
type Subnet struct {
	space  *Space
	prefix netip.Prefix
	within netip.Prefix // where addresses that nobody chose come from
	*addresses
	next netip.Addr // guarded by addresses.mu
}

// New gives a space in which no subnet is taken. The pools are what Choose
// chooses from, in their order.
func New(pools []Pool) (*Space, error) {
	for i, p := range pools {
		if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
			return nil, fault.New(fault.Invalid, "invalid address pool %s of networks of %d bits: want a range, and a size from its own length on", p.Base, p.Size)
		}
		pools[i].Base = p.Base.Masked()
	}
	return &Space{pools: pools, taken: map[netip.Prefix]*addresses{}}, nil
}

// errOverlap has Docker's words.
var errOverlap = fault.New(fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space")

// Take takes a certain subnet. Addresses that nobody chooses come from the range
// within; without one, from all of it. Two may share a subnet when each has a
// range and these do not overlap; any other overlap is fault.Forbidden.
func (s *Space) Take(subnet, within netip.Prefix) (*Subnet, error) {
	subnet = subnet.Masked()
	if within = within.Masked(); !within.IsValid() || within.Bits() <= subnet.Bits() {
		within = subnet
	}
	if !subnet.IsValid() || !subnet.Contains(within.Addr()) {
		return nil, fault.New(fault.Invalid, "invalid pool request: %s is no range of %s", within, subnet)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for prefix, a := range s.taken {
		if prefix == subnet && !overlapsAny(within, a.ranges) {
			continue
		}
		if prefix.Overlaps(subnet) {
			return nil, errOverlap
		}
	}
	return s.takeLocked(subnet, within), nil
}

func (s *Space) takeLocked(subnet, within netip.Prefix) *Subnet {
	a := s.taken[subnet]
	if a == nil {
		a = &addresses{used: map[netip.Addr]bool{}}
		s.taken[subnet] = a
	}
	a.ranges = append(a.ranges, within)
	return &Subnet{space: s, prefix: subnet, within: within, addresses: a, next: within.Addr()}
}

// Choose takes the first subnet of the pools that is free and overlaps none of
// avoid, of IPv6 or IPv4, and of size bits unless that is 0. When there is none
// it is fault.Invalid, as Docker has it.
func (s *Space) Choose(v6 bool, size int, avoid []netip.Prefix) (*Subnet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fits := false
	for _, p := range s.pools {
		if p.Base.Addr().Is6() != v6 {
			continue
		}
		if size != 0 {
			p.Size = size
		}
		if p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
			continue
		}
		fits = true
		if subnet, found := s.freeLocked(p, avoid); found {
			return s.takeLocked(subnet, subnet), nil
		}
	}
	if size != 0 && !fits {
		return nil, fault.New(fault.Invalid, "invalid address pool: no default address pool has room for a network of %d bits", size)
	}
	return nil, fault.New(fault.Invalid, "all predefined address pools have been fully subnetted")
}

// freeLocked goes from one hindrance to behind it.
func (s *Space) freeLocked(p Pool, avoid []netip.Prefix) (netip.Prefix, bool) {
	candidate := netip.PrefixFrom(p.Base.Addr(), p.Size)
	for {
		hindrance, found := s.hindranceLocked(candidate, avoid)
		if !found {
			return candidate, true
		}
		// The larger of the two ends where the next one may begin.
		if hindrance.Bits() > candidate.Bits() {
			hindrance = candidate
		}
		next := Last(hindrance).Next()
		if !next.IsValid() || !p.Base.Contains(next) {
			return netip.Prefix{}, false
		}
		candidate = netip.PrefixFrom(next, p.Size)
	}
}

func (s *Space) hindranceLocked(candidate netip.Prefix, avoid []netip.Prefix) (netip.Prefix, bool) {
	for prefix := range s.taken {
		if prefix.Overlaps(candidate) {
			return prefix, true
		}
	}
	for _, prefix := range avoid {
		if prefix = prefix.Masked(); prefix.Overlaps(candidate) {
			return prefix, true
		}
	}
	return netip.Prefix{}, false
}

// Overlaps tells whether a subnet that is taken overlaps p.
func (s *Space) Overlaps(p netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, found := s.hindranceLocked(p, nil)
	return found
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

// Last is the last address of a prefix; in IPv4 it is the broadcast address.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		if host := 8*(i+1) - p.Bits(); host >= 8 {
			b[i] = 0xff
		} else if host > 0 {
			b[i] |= 1<<host - 1
		}
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// Drop gives the subnet back with all its addresses.
func (n *Subnet) Drop() {
	n.space.mu.Lock()
	defer n.space.mu.Unlock()
	for i, r := range n.ranges {
		if r == n.within {
			n.ranges = append(n.ranges[:i:i], n.ranges[i+1:]...)
			break
		}
	}
	if len(n.ranges) == 0 {
		delete(n.space.taken, n.prefix)
	}
}

// Prefix is the subnet.
func (n *Subnet) Prefix() netip.Prefix { return n.prefix }

// Next takes an address of the range. It goes round: one that was given back is
// taken again only after all others have had their turn, so that a peer's stale
// knowledge of it has faded. When all are in use it is fault.Unavailable.
func (n *Subnet) Next() (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// Among as many as are in use or never given out, and one more, one is free.
	for range len(n.used) + 4 {
		a := n.next
		n.next = a.Next()
		if !n.next.IsValid() || !n.within.Contains(n.next) {
			n.next = n.within.Addr()
		}
		// One that was chosen may lie ahead, and have been given back just now.
		if n.usable(a) && !n.used[a] && a != n.last {
			n.used[a] = true
			return a, nil
		}
	}
	if a := n.last; a.IsValid() && n.within.Contains(a) && n.usable(a) && !n.used[a] {
		n.used[a] = true
		return a, nil
	}
	return netip.Addr{}, fault.New(fault.Unavailable, "no available addresses on this pool: all of %s are in use", n.within)
}

// Claim takes a certain address, anywhere in the subnet. One that is taken is
// fault.Forbidden, as Docker has it.
func (n *Subnet) Claim(a netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.prefix.Contains(a):
		return fault.New(fault.Invalid, "requested address is out of range: %s is not in %s", a, n.prefix)
	case n.used[a] || !n.usable(a):
		return fault.New(fault.Forbidden, "Address already in use")
	}
	n.used[a] = true
	return nil
}

// Release gives an address back.
func (n *Subnet) Release(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, a)
	n.last = a
}

// Cursor is where Next looks next, to be stored and given to Resume.
func (n *Subnet) Cursor() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.next
}

// Resume has Next go on from a cursor that was stored; one that is not in the
// range is passed over. Without, it goes on after the highest address in use, as
// if they had been taken in order.
func (n *Subnet) Resume(cursor netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cursor.IsValid() && n.within.Contains(cursor) {
		n.next = cursor
		return
	}
	for a := range n.used {
		if after := a.Next(); !a.Less(n.next) && after.IsValid() && n.within.Contains(after) {
			n.next = after
		}
	}
}

// usable tells whether an address may be given out: not the subnet's own, which
// in IPv6 means its routers, nor the broadcast address. A link of two addresses
// has neither in IPv4 (RFC 3021).
func (n *Subnet) usable(a netip.Addr) bool {
	if a.Is4() && n.prefix.Bits() > 30 || n.prefix.IsSingleIP() {
		return true
	}
	return a != n.prefix.Addr() && (a.Is6() || a != Last(n.prefix))
}

// Usage tells how many addresses of the subnet are in use or never given out,
// and how many of the range are free; the most that can be told is all ones.
func (n *Subnet) Usage() (used, free uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var inRange uint64
	for a := range n.used {
		if n.within.Contains(a) {
			inRange++
		}
	}
	used = uint64(len(n.used))
	never := map[netip.Addr]bool{n.prefix.Addr(): true, Last(n.prefix): true}
	for a := range never {
		if n.usable(a) {
			continue
		}
		used++
		if n.within.Contains(a) {
			inRange++
		}
	}
	size := n.prefix.Addr().BitLen() - n.within.Bits()
	if size >= 64 {
		low, borrow := bits.Sub64(0, inRange, 0)
		if size == 64 && borrow == 1 {
			return used, low
		}
		return used, ^uint64(0)
	}
	return used, 1<<size - inRange
}
