package ipam

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tarehq/tare/fault"
)

func prefix(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

func space(t testing.TB, pools ...string) *Space {
	t.Helper()
	var list []Pool
	for i := 0; i < len(pools); i += 2 {
		list = append(list, Pool{prefix(pools[i]), prefix("::/" + pools[i+1]).Bits()})
	}
	s, err := New(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		pools  []string
		taken  []string
		avoid  []string
		v6     bool
		size   int
		want   string
		refuse bool
	}{
		{pools: []string{"172.17.0.0/16", "16", "172.18.0.0/15", "16"}, want: "172.17.0.0/16"},
		{pools: []string{"172.17.0.0/16", "16", "172.18.0.0/15", "16"}, taken: []string{"172.17.0.0/16"}, want: "172.18.0.0/16"},
		{pools: []string{"172.18.0.0/15", "16"}, taken: []string{"172.18.4.0/24"}, avoid: []string{"10.0.0.0/8"}, want: "172.19.0.0/16"},
		{pools: []string{"172.18.0.0/15", "16"}, taken: []string{"172.18.0.0/16"}, avoid: []string{"172.19.255.0/24"}, refuse: true},
		{pools: []string{"10.0.0.0/8", "24"}, avoid: []string{"10.0.0.0/9"}, want: "10.128.0.0/24"},
		{pools: []string{"10.0.0.0/8", "24"}, avoid: []string{"10.0.0.0/9", "10.128.0.64/26", "10.128.1.0/24"}, want: "10.128.2.0/24"},
		{pools: []string{"255.255.0.0/16", "24"}, avoid: []string{"255.255.0.0/17", "255.255.128.0/17"}, refuse: true},
		{pools: []string{"10.0.0.0/8", "24"}, size: 28, avoid: []string{"10.0.0.0/28"}, want: "10.0.0.16/28"},
		{pools: []string{"10.0.0.0/8", "24"}, size: 7, refuse: true},
		{pools: []string{"10.0.0.0/8", "24"}, v6: true, refuse: true},
		{pools: []string{"fd00::/8", "64", "10.0.0.0/8", "24"}, v6: true, taken: []string{"fd00::/64", "fd00:0:0:1::/64"}, want: "fd00:0:0:2::/64"},
		{pools: []string{"fd00::/8", "64"}, v6: true, avoid: []string{"fd00::/9"}, want: "fd80::/64"},
		{pools: []string{"fd00::/64", "128"}, v6: true, avoid: []string{"fd00::/65"}, want: "fd00::8000:0:0:0/128"},
	} {
		s := space(t, c.pools...)
		for _, p := range c.taken {
			if _, err := s.Take(prefix(p), netip.Prefix{}); err != nil {
				t.Fatal(err)
			}
		}
		var avoid []netip.Prefix
		for _, p := range c.avoid {
			avoid = append(avoid, prefix(p))
		}
		got, err := s.Choose(c.v6, c.size, avoid)
		if c.refuse {
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("%v: %v", c, err)
			}
			continue
		}
		if err != nil || got.Prefix() != prefix(c.want) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

func TestTake(t *testing.T) {
	for _, c := range []struct {
		first, firstRange, second, secondRange string
		ok                                     bool
	}{
		{"10.0.0.0/24", "", "10.0.1.0/24", "", true},
		{"10.0.0.0/24", "", "10.0.0.0/24", "", false},
		{"10.0.0.0/24", "", "10.0.0.0/16", "", false},
		{"10.0.0.0/16", "", "10.0.3.0/24", "", false},
		{"10.0.0.0/24", "10.0.0.0/25", "10.0.0.0/24", "10.0.0.128/25", true},
		{"10.0.0.0/24", "10.0.0.0/25", "10.0.0.0/24", "10.0.0.64/26", false},
		{"10.0.0.0/24", "10.0.0.0/25", "10.0.0.0/24", "", false},
		{"10.0.0.0/24", "10.0.0.0/25", "10.0.0.0/23", "10.0.1.0/24", false},
		{"fd00::/64", "", "fd00::/80", "", false},
		{"fd00::/64", "", "fd00:0:0:1::/64", "", true},
	} {
		s := space(t)
		a, err := s.Take(prefix(c.first), prefix(c.firstRange))
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Take(prefix(c.second), prefix(c.secondRange))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, fault.Forbidden) {
			t.Errorf("%+v: %v", c, err)
		}
		a.Drop()
		if b != nil {
			b.Drop()
		}
		if len(s.taken) != 0 {
			t.Errorf("%+v: %d are left", c, len(s.taken))
		}
	}
}

// TestSharedSubnet: two ranges of one subnet never give out the same address.
func TestSharedSubnet(t *testing.T) {
	s := space(t)
	a, _ := s.Take(prefix("10.0.0.0/24"), prefix("10.0.0.0/25"))
	b, _ := s.Take(prefix("10.0.0.0/24"), prefix("10.0.0.128/25"))
	if err := a.Claim(netip.MustParseAddr("10.0.0.129")); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		b.Next()
	}
	if err := b.Claim(netip.MustParseAddr("10.0.0.129")); !errors.Is(err, fault.Forbidden) {
		t.Error(err)
	}
}

func TestSmallSubnets(t *testing.T) {
	for text, want := range map[string]int{
		"10.0.0.0/24": 254, "10.0.0.0/30": 2, "10.0.0.0/31": 2, "10.0.0.5/32": 1,
		"fd00::/126": 3, "fd00::/127": 1, "fd00::5/128": 1, "255.255.255.248/29": 6,
	} {
		n, err := space(t).Take(prefix(text), netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		_, free := n.Usage()
		if free != uint64(want) {
			t.Errorf("%s has %d free addresses, want %d", text, free, want)
		}
		seen := map[netip.Addr]bool{}
		for range want {
			a, err := n.Next()
			if err != nil || seen[a] || !n.Prefix().Contains(a) {
				t.Errorf("%s: %v %v", text, a, err)
			}
			seen[a] = true
		}
		if _, err := n.Next(); !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s gives out more than it has: %v", text, err)
		}
		if _, free := n.Usage(); free != 0 {
			t.Errorf("%s: %d free", text, free)
		}
	}
}

// TestLargeSubnet: an IPv6 subnet is not walked through.
func TestLargeSubnet(t *testing.T) {
	n, err := space(t).Take(prefix("fd00::/8"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	n.Resume(Last(n.Prefix()))
	for _, want := range []string{"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00::1", "fd00::2"} {
		if a, err := n.Next(); err != nil || a.String() != want {
			t.Errorf("%v %v, want %s", a, err, want)
		}
	}
	if used, free := n.Usage(); used != 4 || free != ^uint64(0) {
		t.Errorf("%d used, %d free", used, free)
	}
	small, err := space(t).Take(prefix("fd01::/64"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	if used, free := small.Usage(); used != 1 || free != ^uint64(0) {
		t.Errorf("%d used, %d free of a /64", used, free)
	}
}

func TestResume(t *testing.T) {
	n, _ := space(t).Take(prefix("10.0.0.0/24"), netip.Prefix{})
	for _, a := range []string{"10.0.0.2", "10.0.0.7"} {
		if err := n.Claim(netip.MustParseAddr(a)); err != nil {
			t.Fatal(err)
		}
	}
	n.Resume(netip.Addr{})
	if got := n.Cursor().String(); got != "10.0.0.8" {
		t.Errorf("cursor %s", got)
	}
	n.Resume(netip.MustParseAddr("192.0.2.1"))
	n.Resume(netip.MustParseAddr("10.0.0.3"))
	if a, _ := n.Next(); a.String() != "10.0.0.3" {
		t.Errorf("%s", a)
	}
}

// FuzzSubnet holds, through any sequence of calls: an address is with one owner,
// in the range unless it was chosen, not one that nobody may have; and one that
// was given back is not taken again while others are free.
func FuzzSubnet(f *testing.F) {
	f.Add(uint64(1), uint8(24), false)
	f.Add(uint64(2), uint8(29), false)
	f.Add(uint64(3), uint8(31), false)
	f.Add(uint64(4), uint8(64), true)
	f.Add(uint64(5), uint8(125), true)
	f.Fuzz(func(t *testing.T, seed uint64, length uint8, v6 bool) {
		random := rand.New(rand.NewPCG(seed, 7))
		base, whole := netip.MustParseAddr("10.1.2.128"), 32
		if v6 {
			base, whole = netip.MustParseAddr("fd12:3456:789a:1::ff00"), 128
		}
		subnet := netip.PrefixFrom(base, int(length)%(whole+1)).Masked()
		if subnet.Bits() < 8 {
			t.Skip()
		}
		n, err := space(t).Take(subnet, netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		used := map[netip.Addr]bool{}
		var order []netip.Addr // as they were given back
		for range 300 {
			switch random.IntN(4) {
			case 0, 1:
				a, err := n.Next()
				if err != nil {
					if _, free := n.Usage(); free != 0 {
						t.Fatalf("%s: %v with %d free", subnet, err, free)
					}
					continue
				}
				if used[a] || !subnet.Contains(a) || !n.usable(a) {
					t.Fatalf("%s gave out %s", subnet, a)
				}
				if _, free := n.Usage(); len(order) > 0 && order[len(order)-1] == a && free > 0 {
					t.Fatalf("%s: %s is reused at once", subnet, a)
				}
				used[a] = true
			case 2:
				for a := range used {
					delete(used, a)
					n.Release(a)
					order = append(order, a)
					break
				}
			case 3:
				a := subnet.Addr()
				for range random.IntN(20) {
					a = a.Next()
				}
				err := n.Claim(a)
				if (err == nil) != (subnet.Contains(a) && n.usable(a) && !used[a]) {
					t.Fatalf("%s: claim of %s: %v", subnet, a, err)
				}
				if err == nil {
					used[a] = true
					order = nil
				}
			}
		}
	})
}

func TestLast(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/8": "10.255.255.255", "10.0.0.0/31": "10.0.0.1", "10.0.0.4/32": "10.0.0.4", "0.0.0.0/0": "255.255.255.255",
		"fd00::/64": "fd00::ffff:ffff:ffff:ffff", "fd00::/65": "fd00::7fff:ffff:ffff:ffff", "fd00::8/125": "fd00::f",
	} {
		if got := Last(prefix(in)).String(); got != want {
			t.Errorf("last of %s is %s", in, got)
		}
	}
}
