package macvlan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// madeGroup is the interface group of the VLANs that were made here. The mark
// comes with the interface, in one step.
const madeGroup = 0x2e746172

// nowhere are the kinds of interface that can be a parent without a link, in the
// order in which they are tried. Not each kernel has the first.
var nowhere = []string{"dummy", "ifb", "bridge"}

// known tells whether the kernel has a kind of interface. It is asked for one
// without what the kind needs, which one that knows it refuses for another reason.
func known(kind string) bool {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return !errors.Is(err, unix.EOPNOTSUPP)
}

// checkParent refuses a parent that neither is there nor can be made.
func (c config) checkParent() error {
	if c.made {
		return nil
	}
	if _, err := netlink.LinkByName(c.parent); err == nil {
		return nil
	}
	_, _, err := c.vlan()
	return err
}

// vlan takes a name such as eth0.10 apart.
func (c config) vlan() (on netlink.Link, tag int, err error) {
	name, digits, ok := strings.Cut(c.parent, ".")
	if !ok {
		return nil, 0, fault.New(fault.Internal, "invalid subinterface vlan name %s, example formatting is eth0.10; no interface of that name is on the host", c.parent)
	}
	if tag, err = strconv.Atoi(digits); err != nil || name == "" {
		return nil, 0, fault.New(fault.Invalid, "invalid parent interface %s: a VLAN to be made is named by an interface and its number, such as eth0.10", c.parent)
	}
	if tag < 1 || tag > 4094 {
		return nil, 0, fault.New(fault.Internal, "vlan id must be between 1-4094, received: %d", tag)
	}
	if len(c.parent) >= unix.IFNAMSIZ {
		return nil, 0, fault.New(fault.Invalid, "invalid parent interface %s: it has more than 15 characters", c.parent)
	}
	if on, err = netlink.LinkByName(name); err != nil {
		return nil, 0, fault.New(fault.Internal, "-o parent interface was not found on the host: %s", name)
	}
	if !known("vlan") {
		return nil, 0, fault.New(fault.NotImplemented, "interface %s cannot be made: the kernel that runs here has no VLAN interfaces (CONFIG_VLAN_8021Q); name one that is there as the parent", c.parent)
	}
	return on, tag, nil
}

// raiseParent makes the parent if it is missing and one to be made.
func (c config) raiseParent() error {
	if _, err := netlink.LinkByName(c.parent); err == nil {
		return nil
	} else if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return err
	}
	if c.made {
		return c.raiseNowhere()
	}
	on, tag, err := c.vlan()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Group = c.parent, on.Attrs().Index, madeGroup
	return raise(&netlink.Vlan{LinkAttrs: attrs, VlanId: tag, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
}

func (c config) raiseNowhere() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = c.parent
	for _, kind := range nowhere {
		err := raise(&netlink.GenericLink{LinkAttrs: attrs, LinkType: kind})
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return fault.New(fault.NotImplemented, "a %s network needs the option parent, as the kernel has no interface to stand in for one (%s)", c.kind, strings.Join(nowhere, ", "))
}

// raise makes an interface, or takes the one of the name, and sets it up.
func raise(link netlink.Link) error {
	name := link.Attrs().Name
	if err := netlink.LinkAdd(link); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the interface %s: %w", name, err)
	}
	there, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(there)
	}
	if err != nil {
		return fmt.Errorf("set the interface %s up: %w", name, err)
	}
	return nil
}

// removeParent removes the parent if it was made here.
func (c config) removeParent() error {
	link, err := netlink.LinkByName(c.parent)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if !c.made && (link.Type() != "vlan" || link.Attrs().Group != madeGroup) {
		return nil
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the interface %s: %w", c.parent, err)
	}
	return nil
}
