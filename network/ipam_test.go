package network

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tarehq/tare/fault"
)

func TestAddressesGoRound(t *testing.T) {
	a := newAddresses(netip.MustParsePrefix("10.0.0.1/29"))
	take := func(want string) {
		t.Helper()
		got, err := a.take()
		if err != nil || got != addr(want) {
			t.Errorf("took %s (%v), want %s", got, err, want)
		}
	}
	take("10.0.0.2")
	take("10.0.0.3")
	a.release(addr("10.0.0.2"))
	take("10.0.0.4")
	take("10.0.0.5")
	take("10.0.0.6")
	take("10.0.0.2")
	if _, err := a.take(); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("exhausted: %v", err)
	}
	a.release(addr("10.0.0.4"))
	take("10.0.0.4")
}

func TestAddressesResumeAfterTheClaimed(t *testing.T) {
	a := newAddresses(netip.MustParsePrefix("10.0.0.1/24"))
	must(t, a.claim(addr("10.0.0.9")))
	must(t, a.claim(addr("10.0.0.5")))
	a.resume()
	if got, _ := a.take(); got != addr("10.0.0.10") {
		t.Errorf("took %s", got)
	}
	for s, kind := range map[string]fault.Kind{
		"10.0.0.9": fault.Conflict, "10.0.0.0": fault.Invalid, "10.0.0.1": fault.Invalid,
		"10.0.0.255": fault.Invalid, "10.0.1.2": fault.Invalid, "::1": fault.Invalid,
	} {
		if err := a.claim(addr(s)); err == nil || fault.KindOf(err) != kind {
			t.Errorf("claim %s: %v", s, err)
		}
	}
}

func TestFreeSubnet(t *testing.T) {
	used := []netip.Prefix{netip.MustParsePrefix("172.16.0.0/14"), netip.MustParsePrefix("172.20.3.4/32")}
	got, err := freeSubnet(DefaultPools(), used)
	if err != nil || got.String() != "172.21.0.0/16" {
		t.Errorf("%s %v", got, err)
	}
	used = append(used, netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/17"))
	got, err = freeSubnet(DefaultPools(), used)
	if err != nil || got.String() != "192.168.128.0/20" {
		t.Errorf("%s %v", got, err)
	}
	for _, p := range []Pool{{netip.MustParsePrefix("10.0.0.0/16"), 8}, {netip.MustParsePrefix("10.0.0.0/16"), 32}} {
		if _, err := freeSubnet([]Pool{p}, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%v: %v", p, err)
		}
	}
}

func TestInterruptedListIsAskedForAgain(t *testing.T) {
	asked := 0
	all, err := whole(func() ([]int, error) {
		if asked++; asked < 3 {
			return nil, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
}
