package network

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
)

// box is a network namespace as it is worked on: a new one with lo up, or a
// container's.
type box struct {
	ns     *os.File
	routes *routeConn // in the namespace
	// first is the interface eth0 that a namespace has that waits; nil without.
	first    *port
	prepared io.Closer // by Names
	// waiting is the sandbox that a namespace is which waits: with its place on
	// the lan, and the pins of that in the tables. nil for another.
	waiting *Sandbox
}

// port is an interface in a box without an address, and its other end.
type port struct {
	index int
	host  string // on the bridge; "" for one of a driver
	up    bool
}

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// interfacePrefix begins the names of the interfaces that one daemon has on its
// bridge.
func interfacePrefix(identity, bridge string) string {
	sum := sha256.Sum256([]byte(identity + "\x00" + bridge))
	return interfaceMark + base32Lower.EncodeToString(sum[:])[:5]
}

// interfaceMark begins those of every daemon.
const interfaceMark = "tv"

// interfaceName is a new name with the prefix, 15 bytes, the longest allowed.
func interfaceName(prefix string) string {
	random := make([]byte, 5)
	rand.Read(random)
	return prefix + base32Lower.EncodeToString(random)
}

// enter runs f on a thread in the namespace.
func (s *Service) enter(ns *os.File, f func() error) (err error) {
	thread.Own(func() bool {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the network namespace: %w", err)
			return true
		}
		err = f()
		return s.goHome(&err)
	})
	return err
}

// goHome takes the thread back to the host's namespace.
func (s *Service) goHome(err *error) bool {
	if back := unix.Setns(int(s.hostNS.Fd()), unix.CLONE_NEWNET); back != nil {
		*err = errors.Join(*err, fmt.Errorf("return to the host's network namespace: %w", back))
		return false
	}
	return true
}

// makeBox makes a namespace. With a lan it has an interface eth0 there, up
// unless it will have IPv6 addresses: its link-local one follows from its MAC
// address, which is not known yet.
func (s *Service) makeBox(l *lan) (b *box, err error) {
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace: %w", err)
			return true
		}
		b, err = s.furnish(l)
		return s.goHome(&err)
	})
	if err == nil && l != nil {
		err = quietHost(b.first.host)
	}
	if err != nil && b != nil {
		// The end on the bridge goes with the namespace's eth0.
		b.close()
		return nil, err
	}
	return b, err
}

// quietHost keeps the end on the bridge from taking addresses of its own.
func quietHost(name string) error { return writeSysctl("ipv6/conf/"+name+"/disable_ipv6", "1") }

// furnish fills the calling thread's new network namespace. On failure nothing
// of it is left once the thread leaves.
func (s *Service) furnish(l *lan) (_ *box, err error) {
	b := &box{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if b.routes, err = dialRoute(); err != nil {
		return nil, err
	}
	if l == nil {
		return b, b.routes.do(setUp("lo"))
	}
	if b.first, err = s.addPort(b, l, "eth0"); err != nil {
		return nil, err
	}
	v6 := l.first(true) != nil
	if err = prepareInside("eth0", v6); err != nil {
		return nil, err
	}
	up := []request{setUp("lo")}
	if !v6 {
		up = append(up, setUp("eth0"))
		b.first.up = true
	}
	return b, b.routes.do(up...)
}

// fullWait is how long a port waits for room on a bridge that is full.
const fullWait = 2 * time.Second

// addPort makes an interface pair between the box and the lan's bridge.
func (s *Service) addPort(b *box, l *lan, name string) (*port, error) {
	s.mu.Lock()
	br := l.bridge
	s.mu.Unlock()
	if br == nil {
		return nil, l.whyDown(nil)
	}
	p := &port{host: interfaceName(s.prefix)}
	add := func() error {
		return s.routes.do(addVeth(p.host, br.index, br.mtu, name, int(b.ns.Fd())), setHairpin(p.host))
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
	p.index, err = b.routes.interfaceIndex(name)
	return p, err
}

// prepareInside sets an interface up before it is up, or it would have taken a
// link-local address, or a neighbour's word for a router's.
func prepareInside(name string, v6 bool) error {
	conf := "ipv6/conf/" + name
	if !v6 {
		return writeSysctl(conf+"/disable_ipv6", "1")
	}
	for _, set := range [][2]string{{"/disable_ipv6", "0"}, {"/accept_ra", "0"}, {"/accept_dad", "0"}} {
		if err := writeSysctl(conf+set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// interfaceIndex asks for an index in the connection's namespace.
func (c *routeConn) interfaceIndex(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// Interface ioctls are the socket layer's, open to every family.
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("find the interface %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}

// freeName gives the next name of the prefix that no interface of the box has.
func (b *box) freeName(prefix string, endpoints []Endpoint) string {
	for i := 0; ; i++ {
		name := fmt.Sprint(prefix, i)
		if slices.ContainsFunc(endpoints, func(e Endpoint) bool { return e.Interface == name }) {
			continue
		}
		if _, err := b.routes.interfaceIndex(name); errors.Is(err, unix.ENODEV) {
			return name
		}
	}
}

// configure gives the endpoint's interface its addresses and brings it up, and
// sets the default routes that it has.
func (b *box) configure(p *port, e *Endpoint, link Link, default4, default6 bool) error {
	var all []request
	if !link.Bare {
		if e.MAC != "" {
			mac, err := net.ParseMAC(e.MAC)
			if err != nil {
				return err
			}
			all = append(all, setMAC(p.index, mac))
		}
		for _, a := range []netip.Prefix{e.Address, e.Address6} {
			if a.IsValid() {
				all = append(all, addAddress(p.index, a))
			}
		}
	}
	for _, a := range e.LinkLocal {
		length := 16
		if a.Is6() {
			length = 64
		}
		all = append(all, addAddress(p.index, netip.PrefixFrom(a, length)))
	}
	if !p.up {
		all = append(all, setUpIndex(p.index))
	}
	for _, r := range link.Routes {
		all = append(all, addRoute(p.index, r))
	}
	if default4 {
		all = append(all, setDefaultRoute(p.index, e.Gateway))
	}
	if default6 {
		all = append(all, setDefaultRoute(p.index, e.Gateway6))
	}
	return b.routes.do(all...)
}

// macOf reads the MAC address that a driver's interface has.
func (s *Service) macOf(b *box, p *port) (mac string, err error) {
	err = s.enter(b.ns, func() error {
		link, err := netlink.LinkByIndex(p.index)
		if err == nil {
			mac = link.Attrs().HardwareAddr.String()
		}
		return err
	})
	return mac, err
}

// share gives another descriptor of the namespace.
func (b *box) share() (*os.File, error) { return duplicate(b.ns) }

func duplicate(ns *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share the network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "network namespace"), nil
}

// close lets go of the namespace, which ends unless others hold it.
func (b *box) close() {
	b.closeRest()
	if b.ns != nil {
		b.ns.Close()
	}
}

// closeRest closes all but the namespace.
func (b *box) closeRest() {
	if b.routes != nil {
		b.routes.close()
	}
	if b.prepared != nil {
		b.prepared.Close()
		b.prepared = nil
	}
}

// writeSysctl sets a value below /proc/sys/net in the calling thread's
// namespace. A kernel without IPv6 has nothing to switch off.
func writeSysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "ipv6/") {
		return nil
	}
	return err
}

// removalGroup is the interface group of what is to be deleted, a number that
// nobody else uses on purpose.
func removalGroup(prefix string) uint32 {
	sum := sha256.Sum256([]byte(prefix))
	return 1<<30 | binary.BigEndian.Uint32(sum[:])>>2
}
