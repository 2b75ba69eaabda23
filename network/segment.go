package network

import "net/netip"

// segment is one bridge as the rules see it. What is refused or not known is
// zero.
type segment struct {
	NetworkID, Name, Bridge string
	MAC                     string // the bridge's
	// Address4 and Address6 are the bridge's own with their subnets' lengths,
	// invalid without that family. A bridge of an isolated network has none,
	// and then Subnet4 and Subnet6 still tell the containers' subnets.
	Address4, Address6 netip.Prefix
	Subnet4, Subnet6   netip.Prefix
	Routers            []netip.Addr // where the containers' default routes lead, if not to the bridge
	Internal           bool         // nothing passes between it and the outside
	ICC                bool         // containers on it reach each other
	Masquerade         bool         // they leave under the host's address, in mode nat
	Mode4, Mode6       string       // gateway modes: nat, nat-unprotected, routed, isolated
	Bind4, Bind6       netip.Addr   // where ports are published that name no address
	Source4, Source6   netip.Addr   // under which they leave, if it is not the way out's own
	Trusted            []string     // host interfaces that may reach containers directly
}
