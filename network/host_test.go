package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
)

// asHost is testutil.AsHost with lo up.
func asHost(t testing.TB) bool {
	t.Helper()
	if !testutil.AsHost(t) {
		return false
	}
	must(t, ifUp("lo"))
	return true
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ifUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// open makes a service that is ready for Attach.
func open(t testing.TB, c Config) *Service {
	t.Helper()
	s, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close(context.Background())) })
	must(t, s.Restore(t.Context(), nil))
	return s
}

func testConfig(bridge string, third int) Config {
	return Config{Bridge: bridge, BIP: netip.MustParsePrefix(fmt.Sprintf("172.30.%d.1/24", third))}
}

// place is a network namespace to act in; the zero place is the host's.
type place struct{ ns *os.File }

// do runs f on a thread in the place.
func (p place) do(t testing.TB, f func() error) {
	t.Helper()
	must(t, p.try(f))
}

func (p place) try(f func() error) error {
	if p.ns == nil {
		return f()
	}
	return testutil.TryInNetNS(p.ns, f)
}

// machine makes another machine on a network with the host: the host has
// address .1 of the /24 on the interface of the name, the machine .2.
func machine(t testing.TB, name string, third int) place {
	t.Helper()
	var p place
	var err error
	home, openErr := os.Open("/proc/thread-self/ns/net")
	must(t, openErr)
	defer home.Close()
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			p.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	})
	must(t, err)
	t.Cleanup(func() { p.ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns.Fd())}))
	give := func(link, addr string) error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}
	must(t, give(name, fmt.Sprintf("10.99.%d.1/24", third)))
	p.do(t, func() error {
		if err := ifUp("lo"); err != nil {
			return err
		}
		return give("eth0", fmt.Sprintf("10.99.%d.2/24", third))
	})
	return p
}

// route adds a route in the place.
func (p place) route(t testing.TB, dst, via string) {
	t.Helper()
	p.do(t, func() error {
		_, ipNet, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet, Gw: net.ParseIP(via)})
	})
}

// attached is a container's network as the test holds it.
type attached struct {
	*Attachment
	place
}

func attach(t testing.TB, s *Service, name string, ports ...Port) attached {
	t.Helper()
	a, err := s.Attach(t.Context(), Request{Wants: []Want{{}}, ContainerID: "id-" + name, Name: name, Ports: ports})
	must(t, err)
	t.Cleanup(func() { letGo(a) })
	return attached{a, place{a.NetNS}}
}

func letGo(a *Attachment) {
	a.NetNS.Close()
	closeAll(a.Sockets)
}

// serve answers each connection and datagram to the port with the word and
// the client's address as the server sees it.
func (p place) serve(t testing.TB, proto string, port int, word string) {
	t.Helper()
	addr := fmt.Sprintf(":%d", port)
	if proto == "udp" {
		var conn net.PacketConn
		p.do(t, func() (err error) { conn, err = net.ListenPacket("udp4", addr); return err })
		t.Cleanup(func() { conn.Close() })
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				fmt.Fprintf(writerTo{conn, from}, "%s %s\n", word, from.(*net.UDPAddr).IP)
			}
		}()
		return
	}
	var l net.Listener
	p.do(t, func() (err error) { l, err = net.Listen("tcp4", addr); return err })
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s %s\n", word, conn.RemoteAddr().(*net.TCPAddr).IP)
			conn.Close()
		}
	}()
}

type writerTo struct {
	conn net.PacketConn
	addr net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.conn.WriteTo(b, w.addr) }

// ask connects from the place and returns what a server there answers.
func (p place) ask(proto, addr string, patience time.Duration) (answer string, err error) {
	err = p.try(func() error {
		conn, err := net.DialTimeout(proto+"4", addr, patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if proto == "udp" {
			if _, err := conn.Write([]byte("x")); err != nil {
				return err
			}
		}
		answer, err = bufio.NewReader(conn).ReadString('\n')
		answer = strings.TrimSpace(answer)
		return err
	})
	return answer, err
}

// expect fails unless the server at addr gives the answer.
func (p place) expect(t testing.TB, proto, addr, want string) {
	t.Helper()
	got, err := p.ask(proto, addr, 3*time.Second)
	if err != nil || got != want {
		t.Errorf("%s %s answered %q (%v), want %q", proto, addr, got, err, want)
	}
}

// expectNothing fails if anything answers at addr.
func (p place) expectNothing(t testing.TB, proto, addr string) {
	t.Helper()
	if got, err := p.ask(proto, addr, 300*time.Millisecond); err == nil {
		t.Errorf("%s %s must not be reachable and answered %q", proto, addr, got)
	}
}

// hostPorts gives the requests for host ports from first to last, on container
// ports that are off further.
func hostPorts(first, last, off int) []Port {
	var out []Port
	for p := first; p <= last; p++ {
		out = append(out, Port{HostPort: uint16(p), ContainerPort: uint16(p + off)})
	}
	return out
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// remains lists what the host has of the service: interfaces and elements.
func remains(t testing.TB, s *Service) (interfaces []string, elements int) {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if s.host.Ours(l.Attrs().Name) {
			interfaces = append(interfaces, l.Attrs().Name)
		}
	}
	return interfaces, countElements(t, s)
}

// guard is the table of package firewall that keeps the host from being a router.
var guard = &nftables.Table{Name: "tare-forward", Family: nftables.TableFamilyIPv4}

func tableExists(name string) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, err
	}
	_, err = conn.ListTableOfFamily(name, nftables.TableFamilyIPv4)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// serve6 answers each connection to the port by IPv6 with the word and the
// client's address.
func (p place) serve6(t testing.TB, port int, word string) {
	t.Helper()
	var l net.Listener
	p.do(t, func() (err error) { l, err = net.Listen("tcp6", fmt.Sprintf(":%d", port)); return err })
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(conn, "%s %s\n", word, conn.RemoteAddr().(*net.TCPAddr).IP)
			conn.Close()
		}
	}()
}

// expect6 fails unless the server gives the answer; "" is for one that refuses.
func (p place) expect6(t testing.TB, server netip.AddrPort, want string) {
	t.Helper()
	var got string
	err := p.try(func() error {
		conn, err := net.DialTimeout("tcp6", server.String(), 3*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		got, err = bufio.NewReader(conn).ReadString('\n')
		got = strings.TrimSpace(got)
		return err
	})
	if want == "" && errors.Is(err, unix.ECONNREFUSED) {
		return
	}
	if err != nil || got != want {
		t.Errorf("%s answered %q (%v), want %q", server, got, err, want)
	}
}

// writeSysctl sets a value below /proc/sys/net in the calling thread's namespace.
func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
}
