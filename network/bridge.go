package network

import (
	"errors"
	"net/netip"

	"github.com/tarehq/tare/network/files"
	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/link"
)

// bridge is a network's interface on the host, with what the host forwards for
// it.
type bridge struct {
	link.Bridge
	internal bool              // nothing is forwarded for it
	open     bool              // the guard shall drop nothing, see package firewall
	lone     bool              // the host's forwarding is left alone
	bare     [2]bool           // it is turned on without the guard, in IPv4 and IPv6
	guarded  []firewall.Family // it stands
}

// raise makes the bridge or takes the one that is there, and tells whether it
// made it.
func (b *bridge) raise() (made bool, err error) {
	if made, err = b.Raise(); err != nil || b.internal || b.lone {
		return made, err
	}
	if err = b.allowForwarding(); err != nil && made {
		err = errors.Join(err, lowerBridge(b.Name))
	}
	return made, err
}

// allowForwarding makes the host forward in the bridge's families.
func (b *bridge) allowForwarding() error {
	for family, subnet := range map[firewall.Family]netip.Prefix{firewall.IP4: b.Address4, firewall.IP6: b.Address6} {
		if !subnet.IsValid() {
			continue
		}
		if family == firewall.IP4 && b.bare[0] || family == firewall.IP6 && b.bare[1] {
			if err := firewall.TurnForwardingOn(family); err != nil {
				return err
			}
			continue
		}
		guarded, err := firewall.AllowForwarding(b.Name, family, b.open)
		if err != nil {
			return err
		}
		if guarded {
			b.guarded = append(b.guarded, family)
		}
	}
	return nil
}

// avoided are the ranges that no subnet is chosen from: what the host has routes
// to, and its name servers.
func avoided(family int) ([]netip.Prefix, error) {
	routes, err := link.HostRoutes(family)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, r := range routes {
		out = append(out, r.Destination)
	}
	conf, err := files.HostResolvConf()
	if err != nil {
		return nil, err
	}
	for _, n := range files.NameServers(conf) {
		if a, err := netip.ParseAddr(n); err == nil && !a.IsLoopback() {
			out = append(out, netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen()))
		}
	}
	return out, nil
}

// lowerBridge deletes a bridge; one that is not there is no error. Its place in
// the guard goes first, so that after a crash the bridge tells what is left.
func lowerBridge(name string) error {
	if err := firewall.LeaveGuard(name); err != nil {
		return err
	}
	return link.LowerBridge(name)
}
