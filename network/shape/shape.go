// Package shape bounds the rate of an interface pair by its end on the host, out of
// the container's reach: what goes to the container leaves the host's end by a token
// bucket, what comes from it is led from that end through an ifb interface that has
// one. Delay and loss are an emulated link's (netem) on the same way out.
//
//	to the container      HOST root tbf
//	from the container    HOST ingress, u32 -> mirred -> IFB root [netem ->] tbf
//
// The ifb interface is named after the pair's end and is no part of it: Clear
// removes it, Sweep those whose pair has gone. All else goes with the pair. The
// kernel is the only memory.
package shape

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// Limits are what an interface is held to. What is zero is without bound.
type Limits struct {
	In    uint64        `json:",omitempty"` // to the container, in bits per second
	Out   uint64        `json:",omitempty"` // from it
	Delay time.Duration `json:",omitempty"` // of what it sends
	Loss  float64       `json:",omitempty"` // of what it sends, in percent
}

// Least is the lowest rate.
const Least = 1000

// Check refuses limits that cannot be, by a value or by the kernel.
func (l Limits) Check() error {
	for _, rate := range []uint64{l.In, l.Out} {
		if rate != 0 && rate < Least {
			return fault.New(fault.Invalid, "invalid network rate %d: at least %d bits per second are needed", rate, Least)
		}
	}
	if l.Delay < 0 || l.Delay > time.Minute {
		return fault.New(fault.Invalid, "invalid network delay %s: it must be between 0 and 1m", l.Delay)
	}
	if !(l.Loss >= 0 && l.Loss <= 100) {
		return fault.New(fault.Invalid, "invalid network loss %g: it must be between 0 and 100 percent", l.Loss)
	}
	if l.emulates() && !emulation() {
		return fault.New(fault.NotImplemented, "a network's delay and loss need a kernel with netem (CONFIG_NET_SCH_NETEM), which the one that runs here does not have")
	}
	return nil
}

func (l Limits) emulates() bool { return l.Delay != 0 || l.Loss != 0 }

// outbound tells whether what the container sends must be led aside.
func (l Limits) outbound() bool { return l.Out != 0 || l.emulates() }

// Set holds the interface pair whose end on the host is named to the limits, in
// place of those that it had, without losing what is on its way.
func Set(host string, l Limits) error {
	link, err := netlink.LinkByName(host)
	if err == nil {
		err = setIn(link, l.In)
	}
	if err == nil {
		err = setOut(link, l)
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "limit the network's rate on %s: %w", host, err)
	}
	return nil
}

// setIn gives the interface a bucket, or takes it away.
func setIn(link netlink.Link, rate uint64) error {
	if rate == 0 {
		return dropRoot(link, "tbf")
	}
	return netlink.QdiscReplace(bucket(link, netlink.HANDLE_ROOT, netlink.MakeHandle(1, 0), rate))
}

// setOut leads what comes in by the interface aside, or no longer.
func setOut(link netlink.Link, l Limits) error {
	if !l.outbound() {
		err := netlink.QdiscDel(ingress(link))
		if err != nil && !absent(err) {
			return err
		}
		return Clear(link.Attrs().Name)
	}
	aside, err := raiseAside(link)
	if err != nil {
		return err
	}
	// Limits first, or there would be a moment without them.
	if err := limitOut(aside, l); err != nil {
		return err
	}
	return lead(link, aside)
}

// limitOut puts what is wanted on the ifb interface. An emulated link is in front
// of the bucket.
func limitOut(aside netlink.Link, l Limits) error {
	parent, handle := uint32(netlink.HANDLE_ROOT), netlink.MakeHandle(1, 0)
	if l.emulates() {
		if err := dropRoot(aside, "tbf"); err != nil {
			return err
		}
		attrs := netlink.QdiscAttrs{LinkIndex: aside.Attrs().Index, Parent: parent, Handle: handle}
		if err := netlink.QdiscReplace(emulated(attrs, l)); err != nil {
			return err
		}
		parent, handle = netlink.MakeHandle(1, 1), netlink.MakeHandle(2, 0)
	} else if err := dropRoot(aside, "netem"); err != nil {
		return err
	}
	if l.Out == 0 {
		if l.emulates() {
			// The bucket that may be below goes, for a queue without bound.
			err := netlink.QdiscDel(&netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: aside.Attrs().Index, Parent: parent, Handle: handle}})
			if err != nil && !absent(err) {
				return err
			}
		}
		return nil
	}
	return netlink.QdiscReplace(bucket(aside, parent, handle, l.Out))
}

// dropRoot removes the interface's root queue if it is of the kind.
func dropRoot(link netlink.Link, kind string) error {
	list, err := netlink.QdiscList(link)
	if err != nil {
		return err
	}
	for _, q := range list {
		if q.Attrs().Parent == netlink.HANDLE_ROOT && q.Type() == kind {
			if err := netlink.QdiscDel(q); err != nil && !absent(err) {
				return err
			}
		}
	}
	return nil
}

// raiseAside makes the ifb interface of a pair, or gives the one that is there.
func raiseAside(link netlink.Link) (netlink.Link, error) {
	name := asideName(link.Attrs().Name)
	aside, err := netlink.LinkByName(name)
	if err == nil && aside.Type() == "ifb" && aside.Attrs().Flags&unix.IFF_UP != 0 {
		return aside, nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err = netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fault.New(fault.NotImplemented, "what a container sends is limited with an ifb interface (CONFIG_IFB), which the kernel that runs here does not have")
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	// It is no place for addresses; without IPv6 there is nothing to switch off.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if aside, err = netlink.LinkByName(name); err != nil {
		return nil, err
	}
	return aside, netlink.LinkSetUp(aside)
}

// lead has all that comes in by the interface go through aside first.
func lead(link, aside netlink.Link) error {
	filters, err := netlink.FilterList(link, netlink.MakeHandle(0xffff, 0))
	if err != nil && !absent(err) {
		return err
	}
	for _, f := range filters {
		if u, ok := f.(*netlink.U32); ok && leadsTo(u, aside.Attrs().Index) {
			return nil
		}
	}
	if err := netlink.QdiscAdd(ingress(link)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return netlink.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.MakeHandle(0xffff, 0), Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(aside.Attrs().Index)},
	})
}

func leadsTo(f *netlink.U32, index int) bool {
	for _, a := range f.Actions {
		if m, ok := a.(*netlink.MirredAction); ok && m.Ifindex == index {
			return true
		}
	}
	return false
}

// Clear removes what of an interface pair's limits does not go with it.
func Clear(host string) error {
	aside, err := netlink.LinkByName(asideName(host))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil || aside.Type() != "ifb" {
		return err
	}
	if err := netlink.LinkDel(aside); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the interface %s: %w", aside.Attrs().Name, err)
	}
	return nil
}

// Sweep clears what is left of pairs whose end on the host had a name with the
// prefix and which keep does not know.
func Sweep(prefix string, keep func(host string) bool) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		rest, ours := strings.CutPrefix(l.Attrs().Name, asideName(prefix))
		if ours && l.Type() == "ifb" && !keep(prefix+rest) {
			errs = append(errs, Clear(prefix+rest))
		}
	}
	return errors.Join(errs...)
}

// asideName is the ifb interface's of a pair: the end's own with another beginning,
// as a name has no room for more.
func asideName(host string) string { return "ti" + host[min(2, len(host)):] }

func ingress(link netlink.Link) netlink.Qdisc {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}}
}

// absent tells whether err says that a queue is not there.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}
