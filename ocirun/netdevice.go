package ocirun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
	"golang.org/x/sys/unix"
)

// Network devices of linux.netDevices move from this process's network
// namespace to the container's, with their lasting addresses, and are up there.
// When the container ends nothing brings them back: the kernel returns physical
// ones and removes the others with their namespace. Only an attempt that fails
// gives them back.

// moved is a device that was moved.
type moved struct {
	device        // as it was outside
	inside uint32 // its index there
}

// device is a network device and what is lost when it changes its namespace.
type device struct {
	name      string
	index     uint32
	flags     uint32
	addresses []netAddress
}

// netAddress is the body of an RTM_NEWADDR message, struct ifaddrmsg and
// attributes.
type netAddress []byte

func checkDevices(s *specs.Spec) error {
	if len(s.Linux.NetDevices) == 0 {
		return nil
	}
	if namespaceOf(s, specs.NetworkNamespace) == nil {
		return fault.New(fault.Invalid, "unable to move network devices without a NET namespace: linux.netDevices needs one")
	}
	for name, d := range s.Linux.NetDevices {
		for _, n := range []string{name, d.Name} {
			if n != d.Name && n == "" || len(n) >= unix.IFNAMSIZ || n == "." || n == ".." || strings.ContainsAny(n, "/: \t\n\v\f\r\x00") {
				return fault.New(fault.Invalid, "invalid network device name %q", n)
			}
		}
		if name == "" {
			return fault.New(fault.Invalid, "invalid network device name %q", name)
		}
	}
	return nil
}

// moveDevices serves init, which is in its network namespace and waits.
func (a *attempt) moveDevices() (err error) {
	ns, err := unix.Open("/proc/"+strconv.Itoa(a.pid)+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Internal, "open the container's network namespace: %w", err)
	}
	a.opened = append(a.opened, ns)
	if a.inside, err = dialInside(ns); err != nil {
		return err
	}
	outside, err := dialRoute()
	if err != nil {
		return err
	}
	defer outside.close()
	devices := a.b.spec.Linux.NetDevices
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		as := devices[name].Name
		if as == "" {
			as = name
		}
		m, err := outside.moveTo(a.inside, ns, name, as)
		if m != nil {
			a.moved = append(a.moved, *m)
		}
		if err != nil {
			return fault.New(fault.Invalid, "move the network device %s to the container as %s: %w", name, as, err)
		}
	}
	return nil
}

// returnDevices gives back what a failed attempt had moved.
func (a *attempt) returnDevices() {
	if a.inside == nil {
		return
	}
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil || len(a.moved) == 0 {
		return
	}
	defer unix.Close(own)
	outside, err := dialRoute()
	if err != nil {
		return
	}
	defer outside.close()
	for _, m := range a.moved {
		if a.inside.change(m.inside, own, m.name) == nil {
			if now, err := outside.find(m.name); err == nil {
				_ = outside.furnish(now.index, &m.device, m.flags&unix.IFF_UP != 0)
			}
		}
	}
}

// dialInside opens a socket in another network namespace.
func dialInside(ns int) (s *routeSocket, err error) {
	thread.Own(func() bool {
		if err = unix.Setns(ns, unix.CLONE_NEWNET); err == nil {
			s, err = dialRoute()
		}
		return false
	})
	if err != nil {
		return nil, fault.New(fault.Internal, "enter the container's network namespace: %w", err)
	}
	return s, nil
}

// moveTo moves one device. It is returned as soon as it is no longer here.
func (s *routeSocket) moveTo(inside *routeSocket, ns int, name, as string) (*moved, error) {
	d, err := s.find(name)
	if err != nil {
		return nil, err
	}
	before, err := inside.names()
	if err != nil {
		return nil, err
	}
	if _, taken := before[as]; taken { // a template, name%d, never is
		return nil, unix.EEXIST
	}
	if d.addresses, err = s.lasting(d.index); err != nil {
		return nil, err
	}
	if err := s.change(d.index, ns, as); err != nil {
		if _, e := s.find(name); e != nil { // it went and could not get its name
			if left, e := inside.find(name); e == nil {
				return &moved{*d, left.index}, err
			}
		}
		return nil, err
	}
	after, err := inside.names()
	if err != nil {
		return nil, err
	}
	for n, index := range after {
		if _, old := before[n]; !old {
			return &moved{*d, index}, inside.furnish(index, d, true)
		}
	}
	return nil, unix.ENODEV
}

// furnish gives a device its addresses and sets it up.
func (s *routeSocket) furnish(index uint32, d *device, up bool) error {
	for _, a := range d.addresses {
		binary.NativeEndian.PutUint32(a[4:], index) // struct ifaddrmsg's
		if err := s.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a, nil); err != nil {
			return err
		}
	}
	if !up {
		return nil
	}
	link := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(link[4:], index)
	binary.NativeEndian.PutUint32(link[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(link[12:], unix.IFF_UP)
	return s.do(unix.RTM_NEWLINK, 0, link, nil)
}

// change moves a device to a namespace and names it there.
func (s *routeSocket) change(index uint32, ns int, name string) error {
	link := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(link[4:], index)
	link = attribute(link, unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(ns)))
	link = attribute(link, unix.IFLA_IFNAME, append([]byte(name), 0))
	return s.do(unix.RTM_NEWLINK, 0, link, nil)
}

// find gives the device of a name.
func (s *routeSocket) find(name string) (*device, error) {
	d := &device{name: name}
	link := attribute(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, append([]byte(name), 0))
	err := s.do(unix.RTM_GETLINK, 0, link, func(b []byte) {
		d.index, d.flags = binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
	})
	if errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("there is no such device: %w", err)
	}
	return d, err
}

// names gives the devices of the socket's namespace.
func (s *routeSocket) names() (map[string]uint32, error) {
	out := map[string]uint32{}
	err := s.do(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfInfomsg), func(b []byte) {
		eachAttribute(b[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
			if kind == unix.IFLA_IFNAME {
				out[strings.TrimRight(string(value), "\x00")] = binary.NativeEndian.Uint32(b[4:])
			}
		})
	})
	return out, err
}

// lasting gives the permanent addresses of global scope of a device, as the
// messages that make them anew.
func (s *routeSocket) lasting(index uint32) (out []netAddress, err error) {
	err = s.do(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg), func(b []byte) {
		if binary.NativeEndian.Uint32(b[4:]) != index || b[3] != unix.RT_SCOPE_UNIVERSE {
			return
		}
		flags, again := uint32(b[2]), append(netAddress(nil), b[:unix.SizeofIfAddrmsg]...)
		eachAttribute(b[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
			switch kind {
			case unix.IFA_FLAGS:
				flags = binary.NativeEndian.Uint32(value)
			case unix.IFA_ADDRESS, unix.IFA_LOCAL, unix.IFA_BROADCAST, unix.IFA_RT_PRIORITY:
				again = attribute(again, kind, value)
			}
		})
		if flags&unix.IFA_F_PERMANENT == 0 {
			return
		}
		again[2] = 0 // said by the attribute
		const asked = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
		out = append(out, attribute(again, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags&asked)))
	})
	return out, err
}
