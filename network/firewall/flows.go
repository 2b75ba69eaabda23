package firewall

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flows selects connections in conntrack.
type flows func(*netlink.ConntrackFlow) bool

func (f flows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

// ForgetLocalFlows makes the kernel forget the UDP flows from clients that
// have been sending to the sandbox's ports since before they were published; the
// translation is chosen by a flow's first packet alone.
func ForgetLocalFlows(s Sandbox) {
	wanted := map[uint16]bool{}
	var families []Family
	for _, p := range s.Ports {
		if p.Proto != "udp" {
			continue
		}
		wanted[p.HostPort] = true
		if f := familyOf(p.HostIP); !slices.Contains(families, f) && s.target(p).Address.IsValid() {
			families = append(families, f)
		}
	}
	if len(families) == 0 {
		return
	}
	var own []net.IP
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			own = append(own, n.IP)
		}
	}
	for _, f := range families {
		forget(f, func(f *netlink.ConntrackFlow) bool {
			return f.Forward.Protocol == unix.IPPROTO_UDP && wanted[f.Forward.DstPort] &&
				f.Forward.DstIP.Equal(f.Reverse.SrcIP) && slices.ContainsFunc(own, f.Forward.DstIP.Equal)
		})
	}
}

// ForgetFlowsTo makes the kernel forget the UDP flows that were redirected to
// a container that is gone, so that they can go to its successor.
func ForgetFlowsTo(addr netip.Addr) {
	ip := net.IP(addr.AsSlice())
	forget(familyOf(addr), func(f *netlink.ConntrackFlow) bool {
		return f.Forward.Protocol == unix.IPPROTO_UDP && f.Reverse.SrcIP.Equal(ip)
	})
}

// forget is best effort: what it misses ends by conntrack's own timeout.
func forget(f Family, which flows) {
	family := netlink.InetFamily(unix.AF_INET)
	if f == IP6 {
		family = unix.AF_INET6
	}
	netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, which)
}
