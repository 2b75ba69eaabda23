package macvlan

import (
	wire "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/tarehq/tare/fault"
)

// The options of a network, and the mode that lets no other beside it.
const (
	optionParent = "parent"
	passthru     = "passthru"
)

var macvlanModes = map[string]netlink.MacvlanMode{
	"bridge": netlink.MACVLAN_MODE_BRIDGE, "private": netlink.MACVLAN_MODE_PRIVATE,
	"vepa": netlink.MACVLAN_MODE_VEPA, passthru: netlink.MACVLAN_MODE_PASSTHRU,
}

var ipvlanModes = map[string]netlink.IPVlanMode{
	"l2": netlink.IPVLAN_MODE_L2, "l3": netlink.IPVLAN_MODE_L3, "l3s": netlink.IPVLAN_MODE_L3S,
}

var ipvlanFlags = map[string]netlink.IPVlanFlag{
	"bridge": netlink.IPVLAN_FLAG_BRIDGE, "private": netlink.IPVLAN_FLAG_PRIVATE, "vepa": netlink.IPVLAN_FLAG_VEPA,
}

// config is what a network's options say.
type config struct {
	kind, id string
	parent   string
	made     bool // the parent leads nowhere and is made for this network
	internal bool
	mode     string
	flag     string
}

// config reads a network's options. What is wrong is Internal: Docker's status is
// 500. Others than the driver's are left to whom they
// concern.
func (d *Driver) config(n wire.Network) (config, error) {
	c := config{kind: d.kind, id: n.ID, parent: n.Options[optionParent], internal: n.Internal, mode: n.Options[d.kind+"_mode"]}
	if d.kind == Macvlan {
		if c.mode == "" {
			c.mode = "bridge"
		}
		if _, ok := macvlanModes[c.mode]; !ok {
			return c, fault.New(fault.Internal, "requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default", c.mode)
		}
	} else {
		if c.mode == "" {
			c.mode = "l2"
		}
		if _, ok := ipvlanModes[c.mode]; !ok {
			return c, fault.New(fault.Internal, "requested ipvlan mode '%s' is not valid, 'l2' mode is the ipvlan driver default", c.mode)
		}
		if c.flag = n.Options["ipvlan_flag"]; c.flag == "" {
			c.flag = "bridge"
		}
		if _, ok := ipvlanFlags[c.flag]; !ok {
			return c, fault.New(fault.Internal, "requested ipvlan flag '%s' is not valid, 'bridge' is the ipvlan driver default", c.flag)
		}
	}
	switch {
	case c.parent == "lo":
		return c, fault.New(fault.Internal, "loopback interface is not a valid %s parent link", d.kind)
	case c.parent == "":
		c.made, c.parent = true, "dm-"+n.ID[:min(12, len(n.ID))]
	}
	return c, nil
}

// routed tells whether packets leave by routes alone, without neighbours.
func (c config) routed() bool { return c.kind == IPvlan && c.mode != "l2" }

// link is a container's interface.
func (c config) link(attrs netlink.LinkAttrs) netlink.Link {
	if c.kind == IPvlan {
		return &netlink.IPVlan{LinkAttrs: attrs, Mode: ipvlanModes[c.mode], Flag: ipvlanFlags[c.flag]}
	}
	return &netlink.Macvlan{LinkAttrs: attrs, Mode: macvlanModes[c.mode]}
}
