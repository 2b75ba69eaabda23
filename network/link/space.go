package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
)

// Space is a network namespace as it is worked on: a new one with lo up, or a
// container's. It is used by one at a time and closed by whoever opened it.
type Space struct {
	NS *os.File
	// Sys holds the namespace's sysfs, read-only, of one that NewOn made: see sysfs.
	// Whoever takes it out closes it; nil for none.
	Sys    *os.File
	host   *Host
	routes *conn // in the namespace
}

// Port is an interface in a Space.
type Port struct {
	// Host is the other end, on the bridge; "" for one that was taken.
	Host  string
	index int
	up    bool
}

// New makes a namespace.
func (h *Host) New() (*Space, error) {
	s, _, err := h.make(nil, false)
	return s, err
}

// NewOn makes a namespace with an interface eth0 on the bridge. It is up unless it
// will have IPv6 addresses: its link-local one follows from its MAC address, which
// is not known yet.
func (h *Host) NewOn(b *Bridge, v6 bool) (*Space, *Port, error) { return h.make(b, v6) }

func (h *Host) make(b *Bridge, v6 bool) (s *Space, p *Port, err error) {
	enter := func() error { return unix.Unshare(unix.CLONE_NEWNET) }
	if h.NewNS != nil {
		ns, err := h.NewNS()
		if err != nil {
			return nil, nil, err
		}
		defer ns.Close()
		enter = func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) }
	}
	thread.Own(func() bool {
		if err = enter(); err != nil {
			err = fmt.Errorf("make a network namespace: %w", err)
			return true
		}
		s, p, err = h.furnish(b, v6)
		return h.home(&err)
	})
	if err == nil && p != nil {
		err = quiet(p.Host)
	}
	if err != nil && s != nil {
		// The end on the bridge goes with the namespace's eth0.
		s.Close()
		return nil, nil, err
	}
	return s, p, err
}

// quiet keeps the end on the bridge from taking addresses of its own.
func quiet(name string) error { return setIPv6(name, "disable_ipv6", "1") }

// furnish fills the calling thread's new network namespace. On failure nothing
// of it is left once the thread leaves.
func (h *Host) furnish(b *Bridge, v6 bool) (_ *Space, p *Port, err error) {
	s := &Space{host: h}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.NS, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, nil, err
	}
	if s.routes, err = dial(); err != nil {
		return nil, nil, err
	}
	if b == nil {
		return s, nil, s.routes.do(setUp("lo"))
	}
	s.Sys, _ = sysfs()
	if p, err = s.addPort(b, "eth0"); err != nil {
		return nil, nil, err
	}
	if err = prepareInside("eth0", v6); err != nil {
		return nil, nil, err
	}
	up := []request{setUp("lo")}
	if !v6 {
		up = append(up, setUp("eth0"))
		p.up = true
	}
	return s, p, s.routes.do(up...)
}

// Enter opens a container's namespace; ns stays the caller's.
func (h *Host) Enter(ns *os.File) (*Space, error) {
	own, err := duplicate(ns)
	if err != nil {
		return nil, err
	}
	s := &Space{NS: own, host: h}
	if err := s.enter(func() (err error) { s.routes, err = dial(); return err }); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Furnish opens a new namespace that somebody else has made, and brings up lo.
func (h *Host) Furnish(ns *os.File) (*Space, error) {
	s, err := h.Enter(ns)
	if err != nil {
		return nil, err
	}
	if err := s.routes.do(setUp("lo")); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Space) enter(f func() error) error { return s.host.enter(s.NS, f) }

// fullWait is how long a port waits for room on a bridge that is full.
const fullWait = 2 * time.Second

// Plug makes an interface of the name on the bridge.
func (s *Space) Plug(b *Bridge, name string) (*Port, error) {
	p, err := s.addPort(b, name)
	if err == nil {
		err = quiet(p.Host)
	}
	return p, err
}

// addPort makes an interface pair between the namespace and the bridge.
func (s *Space) addPort(b *Bridge, name string) (*Port, error) {
	p := &Port{Host: s.host.newName()}
	add := func() error {
		return s.host.routes.do(addVeth(p.Host, b.Index, b.MTU, name, int(s.NS.Fd())), setHairpin(p.Host))
	}
	err := add()
	// Ports of containers that have ended may still be on their way out.
	for end := time.Now().Add(fullWait); errors.Is(err, unix.EXFULL) && time.Now().Before(end); err = add() {
		time.Sleep(fullWait / 100)
	}
	if errors.Is(err, unix.EXFULL) {
		return nil, fault.New(fault.Unavailable, "the network's bridge has as many ports as the kernel gives one, 1023: use another network")
	}
	if err != nil {
		return nil, err
	}
	p.index, err = s.routes.index(name)
	return p, err
}

// Take takes an interface of the host into the namespace, under a name there.
func (s *Space) Take(hostName, name string) (*Port, error) {
	index, err := s.host.routes.index(hostName)
	if err != nil {
		return nil, err
	}
	if err := s.host.routes.do(moveLink(index, int(s.NS.Fd()), name)); err != nil {
		return nil, err
	}
	return s.port(name)
}

// Name takes one that is inside already, and gives it the name.
func (s *Space) Name(old, name string) (*Port, error) {
	p, err := s.port(old)
	if err != nil || old == name {
		return p, err
	}
	return p, s.routes.do(rename(p.index, name))
}

func (s *Space) port(name string) (*Port, error) {
	index, err := s.routes.index(name)
	return &Port{index: index}, err
}

// Prepare makes an interface's settings, before it is up: see ReadSysctl for
// sysctls. A bare one has no others.
func (s *Space) Prepare(name string, bare, v6 bool, sysctls []string) error {
	return s.enter(func() error {
		if !bare {
			if err := prepareInside(name, v6); err != nil {
				return err
			}
		}
		return applySysctls(name, sysctls)
	})
}

// prepareInside sets an interface up before it is up, or it would have taken a
// link-local address, or a neighbour's word for a router's.
func prepareInside(name string, v6 bool) error {
	if !v6 {
		return setIPv6(name, "disable_ipv6", "1")
	}
	for _, set := range [][2]string{{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"accept_dad", "0"}} {
		if err := setIPv6(name, set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// Settings are what an interface gets. What is zero is left as it is.
type Settings struct {
	MAC       string
	Addresses []netip.Prefix
	Routes    []Route
	Defaults  []netip.Addr // gateways, one of a family
}

// Route leads to a destination, by way of a gateway or, without one, on the
// link itself.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
}

// Configure gives the interface its settings and brings it up.
func (s *Space) Configure(p *Port, c Settings) error {
	var all []request
	if c.MAC != "" {
		mac, err := net.ParseMAC(c.MAC)
		if err != nil {
			return err
		}
		all = append(all, setMAC(p.index, mac))
	}
	for _, a := range c.Addresses {
		all = append(all, addAddress(p.index, a))
	}
	if !p.up {
		all = append(all, setUpIndex(p.index))
	}
	for _, r := range c.Routes {
		all = append(all, addRoute(p.index, r))
	}
	for _, gateway := range c.Defaults {
		all = append(all, setDefaultRoute(p.index, gateway))
	}
	return s.routes.do(all...)
}

// MAC reads the address that an interface has.
func (s *Space) MAC(p *Port) (mac string, err error) {
	err = s.enter(func() error {
		link, err := netlink.LinkByIndex(p.index)
		if err == nil {
			mac = link.Attrs().HardwareAddr.String()
		}
		return err
	})
	return mac, err
}

// Has tells whether there is an interface of the name.
func (s *Space) Has(name string) bool { return s.routes.has(name) }

// SetDefault replaces the default route of the gateway's family by one through
// the interface.
func (s *Space) SetDefault(name string, gateway netip.Addr) error {
	index, err := s.routes.index(name)
	if err == nil {
		err = s.routes.do(setDefaultRoute(index, gateway))
	}
	if err != nil {
		return fmt.Errorf("give the default route to %s: %w", name, err)
	}
	return nil
}

// Delete deletes an interface, if it is there.
func (s *Space) Delete(name string) {
	if index, err := s.routes.index(name); err == nil {
		_ = s.routes.do(deleteLink(index)) // somebody else may have
	}
}

// Share gives another descriptor of the namespace.
func (s *Space) Share() (*os.File, error) { return duplicate(s.NS) }

func duplicate(ns *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share the network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "network namespace"), nil
}

// Close lets go of the namespace, which ends unless others hold it.
func (s *Space) Close() {
	s.Finish()
	if s.NS != nil {
		s.NS.Close()
	}
}

// DropSys lets go of the namespace's sysfs, which ends unless it is mounted.
func (s *Space) DropSys() {
	if s.Sys != nil {
		s.Sys.Close()
		s.Sys = nil
	}
}

// Finish ends the work on it; the namespace stays open, the caller's from then on.
func (s *Space) Finish() {
	s.DropSys()
	if s.routes != nil {
		s.routes.close()
	}
}
