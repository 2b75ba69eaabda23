package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// With HostFirewall a published port is as open as the host's own rules make it.
// Those stand at the hook input, in any table, and are meant for what the host
// receives; what is redirected before never comes there. So a connection's first
// packet is not redirected where it arrives. It goes to the host, and when all
// other rules at the hook input have let it pass, ours, which come last, hand it
// back: a copy goes through a pair of interfaces and arrives once more, as from
// outside and with its own source address, and is redirected there. The rest of
// the connection takes the straight way, by conntrack. Whoever changes the host's
// rules changes nothing for connections that are open, as with any rule that
// lets established connections pass.
//
// The copy's source is not one that is reached by the pair, so the host must
// not insist on that: a strict net.ipv4.conf.all.rp_filter cannot be overruled
// for one interface.
const (
	admitBegin = "tare-admit0"
	admitEnd   = "tare-admit1" // where it comes in again
)

// admitMAC is the address of both: without ARP the kernel sends to the sender's
// own.
var admitMAC = net.HardwareAddr{0x02, 0x42, 0xad, 0x31, 0x17, 0x01}

// admit is the chain that hands back.
func (o Options) admit(f Family) Chain {
	port, to := []field{l4proto, thDport}, daddr(f)
	fresh := connection("ct state new", expr.CtKeySTATE, expr.CtStateBitNEW)
	again := copyTo(f)
	var rules []Rule
	for _, m := range []match{
		in(setAddressPorts, to, l4proto, thDport), in(setPorts, port...), in(setAddressRanges, to, l4proto, thDport), in(setRanges, port...),
	} {
		rules = append(rules, when(again, notNamed(iifname, "lo"), notNamed(iifname, admitEnd), fresh, m))
	}
	return hooked("admit", "filter", "input", lastPriority, rules)
}

// admitVia4 and admitVia6 are only a way to the interface; nobody has them.
var admitVia4, admitVia6 = netip.MustParseAddr("192.0.2.0"), netip.MustParseAddr("fe80::ad31:17")

// copyTo sends a copy through the pair.
func copyTo(f Family) verdict {
	gateway := admitVia4
	if f == IP6 {
		gateway = admitVia6
	}
	return verdict{text: fmt.Sprintf("dup to %s device %q drop", gateway, admitBegin), exprs: func(map[string]uint32) []expr.Any {
		index := uint32(0)
		if l, err := netlink.LinkByName(admitBegin); err == nil {
			index = uint32(l.Attrs().Index)
		}
		device := words(daddr(f).size)
		return []expr.Any{
			&expr.Immediate{Register: word(0), Data: gateway.AsSlice()},
			&expr.Immediate{Register: word(device), Data: nativeUint32(index)},
			&expr.Dup{RegAddr: word(0), RegDev: word(device), IsRegDevSet: true},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}
	}}
}

// AdmitDevices makes the pair that HostFirewall needs, if it is not there. It is
// the same for all daemons of a host.
func AdmitDevices() error {
	if strict, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter"); err == nil && strings.TrimSpace(string(strict)) == "1" {
		return fault.New(fault.Invalid, "published ports cannot respect the host's firewall while net.ipv4.conf.all.rp_filter is 1: set it to 2 (or to 0, and to 1 on the interfaces that need it)")
	}
	if _, err := netlink.LinkByName(admitEnd); err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr, attrs.Flags = admitBegin, admitMAC, net.FlagUp
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: admitEnd, PeerHardwareAddr: admitMAC})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make the interfaces %s and %s: %w", admitBegin, admitEnd, err)
		}
	}
	for _, name := range []string{admitBegin, admitEnd} {
		// They need no addresses, and say nothing of their own.
		for _, set := range [][2]string{{"ipv6/conf/" + name + "/addr_gen_mode", "1"}, {"ipv6/conf/" + name + "/accept_ra", "0"}, {"ipv4/conf/" + name + "/rp_filter", "0"}} {
			if err := ensureSysctl(set[0], set[1]); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetARPOff(link)
		}
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err == nil && name == admitBegin && haveIP6() {
			err = netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: admitVia6.AsSlice(), Mask: net.CIDRMask(128, 128)}, Scope: netlink.SCOPE_LINK})
		}
		if err != nil {
			return fmt.Errorf("bring up %s: %w", name, err)
		}
	}
	return nil
}
