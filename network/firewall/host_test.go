package firewall

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
)

// asHost is testutil.AsHost with lo up.
func asHost(t testing.TB) bool {
	t.Helper()
	if !testutil.AsHost(t, "-test.timeout=60s") {
		return false
	}
	must(t, up("lo"))
	return true
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func give(link string, addresses ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// machine is a network namespace: a container, or a computer on the host's LAN.
// The zero machine is the host.
type machine struct {
	ns    *os.File
	place Place
	mac   net.HardwareAddr
}

func (m machine) try(f func() error) (err error) {
	if m.ns == nil {
		return f()
	}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	thread.Own(func() bool {
		if err = unix.Setns(int(m.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return true
		}
		err = f()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	})
	return err
}

func (m machine) do(t testing.TB, f func() error) {
	t.Helper()
	must(t, m.try(f))
}

// connect makes a namespace with eth0, whose other end is the host's interface
// of the name.
func connect(t testing.TB, port string, mac string, addresses ...string) machine {
	t.Helper()
	var m machine
	var err error
	home, openErr := os.Open("/proc/thread-self/ns/net")
	must(t, openErr)
	defer home.Close()
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			m.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	})
	must(t, err)
	t.Cleanup(func() { m.ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = port
	m.mac, err = net.ParseMAC(mac)
	must(t, err)
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: m.mac, PeerNamespace: netlink.NsFd(m.ns.Fd())}))
	m.do(t, func() error {
		os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0)
		os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_ra", []byte("1"), 0)
		if err := up("lo"); err != nil {
			return err
		}
		return give("eth0", addresses...)
	})
	return m
}

// lab is a host with bridges, containers and what the rules are made of.
type lab struct {
	t         testing.TB
	options   Options
	networks  []Network
	sandboxes []Sandbox
	firewall  *Firewall
}

func newLab(t testing.TB) *lab {
	for _, f := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		must(t, os.WriteFile("/proc/sys/net/"+f, []byte("1"), 0))
	}
	return &lab{t: t, options: Options{Table: "t", Ports: []string{"tv"}}, firewall: New("t")}
}

// network makes a bridge with the subnets 10.0.N.0/24 and fd00:N::/64.
func (l *lab) network(name string, n int, change func(*Network)) Network {
	l.t.Helper()
	mac := fmt.Sprintf("02:42:00:00:%02x:01", n)
	hw, _ := net.ParseMAC(mac)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, hw
	must(l.t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	must(l.t, give(name, fmt.Sprintf("10.0.%d.1/24", n), fmt.Sprintf("fd00:%d::1/64", n)))
	must(l.t, os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte("1"), 0))
	made := Network{ID: name, Name: name, Bridge: name, MAC: mac, ICC: true, Masquerade: true,
		Subnet4: prefix(fmt.Sprintf("10.0.%d.0/24", n)), Gateway4: addr(fmt.Sprintf("10.0.%d.1", n)),
		Subnet6: prefix(fmt.Sprintf("fd00:%d::/64", n)), Gateway6: addr(fmt.Sprintf("fd00:%d::1", n))}
	if change != nil {
		change(&made)
	}
	l.networks = append(l.networks, made)
	return made
}

// container puts one on the network, with the addresses that end in the number.
func (l *lab) container(n Network, number int, ports ...Port) machine {
	l.t.Helper()
	four, six := n.Gateway4.As4(), n.Gateway6.As16()
	four[3], six[15] = byte(number), byte(number)
	a4, a6 := netip.AddrFrom4(four), netip.AddrFrom16(six)
	name := fmt.Sprintf("tv%s%d", n.Bridge, number)
	mac := fmt.Sprintf("02:42:00:%02x:%02x:%02x", n.Gateway4.As4()[2], number, number)
	m := connect(l.t, name, mac, a4.String()+"/24", a6.String()+"/64")
	bridge, err := netlink.LinkByName(n.Bridge)
	must(l.t, err)
	port, err := netlink.LinkByName(name)
	must(l.t, err)
	must(l.t, netlink.LinkSetMaster(port, bridge))
	must(l.t, netlink.LinkSetHairpin(port, true))
	must(l.t, netlink.LinkSetUp(port))
	m.route(l.t, "0.0.0.0/0", n.Gateway4.String())
	m.route(l.t, "::/0", n.Gateway6.String())
	m.place = Place{Network: n.ID, Port: name, MAC: mac, Addresses: []netip.Addr{a4, a6}}
	l.sandboxes = append(l.sandboxes, Sandbox{ID: name, Name: name, Places: []Place{m.place}, Ports: ports, Target4: Target{n.ID, a4}, Target6: Target{n.ID, a6}})
	return m
}

// lan makes a computer on the host's network 192.0.2.0/24 and 2001:db8::/64, of
// which the host has .1 and ::1.
func (l *lab) lan(name string, number int) machine {
	l.t.Helper()
	m := connect(l.t, name, fmt.Sprintf("02:00:00:00:00:%02x", number), fmt.Sprintf("192.0.%d.2/24", number), fmt.Sprintf("2001:db8:%d::2/64", number))
	os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0)
	must(l.t, give(name, fmt.Sprintf("192.0.%d.1/24", number), fmt.Sprintf("2001:db8:%d::1/64", number)))
	return m
}

func (l *lab) apply() {
	l.t.Helper()
	must(l.t, l.firewall.Replace(Rules(l.options, l.networks, l.sandboxes)))
}

func (m machine) route(t testing.TB, dst, via string) {
	t.Helper()
	m.do(t, func() error {
		_, ipNet, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet, Gw: net.ParseIP(via)})
	})
}

// serve answers each connection and datagram to the port with the word and the
// client's address as the server sees it, in both families.
func (m machine) serve(t testing.TB, port int, word string) {
	t.Helper()
	listen := net.ListenConfig{}
	var l net.Listener
	var p net.PacketConn
	m.do(t, func() (err error) {
		if l, err = listen.Listen(context.Background(), "tcp", fmt.Sprint(":", port)); err == nil {
			p, err = net.ListenPacket("udp", fmt.Sprint(":", port))
		}
		return err
	})
	t.Cleanup(func() { l.Close(); p.Close() })
	answer := func(from string) string {
		return word + " " + netip.MustParseAddrPort(from).Addr().Unmap().String() + "\n"
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, answer(conn.RemoteAddr().String()))
			conn.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			p.WriteTo([]byte(answer(from.String())), from)
		}
	}()
}

func (m machine) ask(proto, address string, patience time.Duration) (answer string, err error) {
	err = m.try(func() error {
		conn, err := net.DialTimeout(proto, address, patience)
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

// expect fails unless the server at the address gives the answer.
func (m machine) expect(t testing.TB, proto, address, want string) {
	t.Helper()
	if got, err := m.ask(proto, address, 3*time.Second); err != nil || got != want {
		t.Errorf("%s %s answered %q (%v), want %q", proto, address, got, err, want)
	}
}

// expectNothing fails if anything answers there.
func (m machine) expectNothing(t testing.TB, proto, address string) {
	t.Helper()
	if got, err := m.ask(proto, address, 200*time.Millisecond); err == nil {
		t.Errorf("%s %s must not be reachable and answered %q", proto, address, got)
	}
}

// send puts a frame on the machine's eth0.
func (m machine) send(t testing.TB, frame []byte) {
	t.Helper()
	m.do(t, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
	})
}

// hears opens what reads the frames that reach the machine's eth0.
func (m machine) hears(t testing.TB) int {
	t.Helper()
	fd := -1
	m.do(t, func() (err error) {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: eth0.Index, Protocol: all})
	})
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// takeLoopback takes 127.0.0.1 and its routes from the calling thread's
// namespace.
func takeLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	own, err := netlink.ParseAddr("127.0.0.1/8")
	if err != nil {
		return err
	}
	return netlink.AddrDel(lo, own)
}
