package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	wire "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

func TestPublishedPortIsReached(t *testing.T) {
	if !asHost(t) {
		return
	}
	client := machine(t, "lan0", 1)
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "web",
		Port{HostPort: 8080, ContainerPort: 80},
		Port{HostPort: 8080, ContainerPort: 80, Proto: "udp"},
		Port{HostIP: addr("10.99.1.1"), HostPort: 8090, ContainerPort: 80})
	neighbour := attach(t, s, "neighbour")
	c.serve(t, "tcp", 80, "web")
	c.serve(t, "udp", 80, "web")

	host := place{}
	for _, proto := range []string{"tcp", "udp"} {
		host.expect(t, proto, "127.0.0.1:8080", "web 172.30.1.1")
		host.expect(t, proto, "10.99.1.1:8080", "web 10.99.1.1")
		client.expect(t, proto, "10.99.1.1:8080", "web 10.99.1.2")
		c.expect(t, proto, "10.99.1.1:8080", "web 172.30.1.1")
		neighbour.expect(t, proto, "10.99.1.1:8080", "web 172.30.1.1")
		neighbour.expect(t, proto, "172.30.1.2:80", "web 172.30.1.3")
	}
	host.expect(t, "tcp", "172.30.1.1:8080", "web 172.30.1.1")
	host.expect(t, "tcp", "172.30.1.2:80", "web 172.30.1.1")
	client.expect(t, "tcp", "10.99.1.1:8090", "web 10.99.1.2")
	host.expectNothing(t, "tcp", "127.0.0.1:8090")
}

func TestOutgoingIsMasqueraded(t *testing.T) {
	if !asHost(t) {
		return
	}
	server := machine(t, "lan0", 1)
	server.serve(t, "tcp", 80, "outside")
	s := open(t, testConfig("tt0", 1))
	attach(t, s, "c").expect(t, "tcp", "10.99.1.2:80", "outside 10.99.1.1")
}

func TestHostBecomesNoRouter(t *testing.T) {
	if !asHost(t) {
		return
	}
	left, right := machine(t, "lan0", 1), machine(t, "lan1", 2)
	left.route(t, "10.99.2.0/24", "10.99.1.1")
	right.route(t, "10.99.1.0/24", "10.99.2.1")
	right.serve(t, "tcp", 80, "right")
	must(t, writeSysctl("ipv4/ip_forward", "0"))

	one, two := testConfig("tt1", 1), testConfig("tt2", 2)
	s := open(t, one)
	attach(t, s, "a").expect(t, "tcp", "10.99.2.2:80", "right 10.99.2.1")
	left.expectNothing(t, "tcp", "10.99.2.2:80")
	// Neither in the way of another daemon nor forgotten by the next.
	other := open(t, two)
	attach(t, other, "b").expect(t, "tcp", "10.99.2.2:80", "right 10.99.2.1")
	must(t, other.Close(t.Context()))
	must(t, s.Close(t.Context()))
	s = open(t, one)
	left.expectNothing(t, "tcp", "10.99.2.2:80")
	must(t, s.Close(t.Context()))
	// Whoever leaves it to others does so for the daemons beside him and after him.
	open(t, two)
	one.ForwardAll = true
	s = open(t, one)
	attach(t, s, "c").expect(t, "tcp", "10.99.2.2:80", "right 10.99.2.1")
	left.expect(t, "tcp", "10.99.2.2:80", "right 10.99.1.2")
	conn, err := nftables.New()
	must(t, err)
	conn.FlushRuleset()
	must(t, conn.Flush())
	testutil.Eventually(t, 5*time.Second, "the guard is back and open", func() bool {
		chain, err := conn.ListChain(guard, "forward")
		return err == nil && *chain.Policy == nftables.ChainPolicyAccept
	})
	left.expect(t, "tcp", "10.99.2.2:80", "right 10.99.1.2")
	must(t, s.Close(t.Context()))
	one.ForwardAll = false
	open(t, one)
	left.expect(t, "tcp", "10.99.2.2:80", "right 10.99.1.2")
}

// What stays within a bridge is not the guard's affair, though br_netfilter shows
// it: not on networks that the host does not forward for, nor on those that were
// there before the guard was.
func TestGuardLetsInternalNetworksBe(t *testing.T) {
	if !asHost(t) {
		return
	}
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		must(t, writeSysctl(name, "0"))
	}
	c := stored(t)
	s := open(t, c)
	yes := true
	isolated := map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "isolated", "com.docker.network.bridge.gateway_mode_ipv6": "isolated"}
	create(t, s, wire.CreateRequest{Name: "inner", Internal: true, EnableIPv6: &yes})
	create(t, s, wire.CreateRequest{Name: "alone", Internal: true, EnableIPv6: &yes, Options: isolated})
	create(t, s, wire.CreateRequest{Name: "outer", EnableIPv6: &yes}) // which turns on the forwarding of IPv6
	reach := func(when string) {
		t.Helper()
		for _, on := range []string{"inner", "alone"} {
			server, client := attachTo(t, s, "server"+on+when, Want{Network: on}), attachTo(t, s, "client"+on+when, Want{Network: on})
			server.serve(t, "tcp", 80, on)
			server.serve6(t, 81, on)
			e := client.Endpoints[0]
			client.expect(t, "tcp", netip.AddrPortFrom(server.Endpoints[0].Address.Addr(), 80).String(), on+" "+e.Address.Addr().String())
			client.expect6(t, netip.AddrPortFrom(server.Endpoints[0].Address6.Addr(), 81), on+" "+e.Address6.Addr().String())
		}
	}
	reach("first")
	conn, err := nftables.New()
	must(t, err)
	conn.FlushRuleset()
	must(t, conn.Flush())
	testutil.Eventually(t, 5*time.Second, "the guard is back", func() bool {
		set, err := conn.GetSetByName(guard, "bridges")
		if err != nil {
			return false
		}
		elements, err := conn.GetSetElements(set)
		return err == nil && len(elements) == 4
	})
	reach("flushed")
}

func TestHostThatForwardsKeepsItsRules(t *testing.T) {
	if !asHost(t) {
		return
	}
	must(t, writeSysctl("ipv4/ip_forward", "1"))
	open(t, testConfig("tt0", 1))
	if present, err := tableExists(guard.Name); present || err != nil {
		t.Errorf("the guard is there: %v, %v", present, err)
	}
}

func TestLoopbackBindingIsTheHostsAlone(t *testing.T) {
	if !asHost(t) {
		return
	}
	client := machine(t, "lan0", 1)
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "web", Port{HostIP: addr("127.0.0.1"), HostPort: 8080, ContainerPort: 80})
	neighbour := attach(t, s, "neighbour")
	c.serve(t, "tcp", 80, "web")
	place{}.expect(t, "tcp", "127.0.0.1:8080", "web 172.30.1.1")
	place{}.expectNothing(t, "tcp", "10.99.1.1:8080")
	client.expectNothing(t, "tcp", "10.99.1.1:8080")

	// A host that does not check for martians on lan0 either.
	must(t, writeSysctl("ipv4/conf/lan0/route_localnet", "1"))
	for _, from := range []struct {
		place
		via string
	}{{client, "10.99.1.1"}, {neighbour.place, "172.30.1.1"}} {
		from.do(t, func() error {
			if err := writeSysctl("ipv4/conf/eth0/route_localnet", "1"); err != nil {
				return err
			}
			// What leads 127.0.0.1 elsewhere than to the place itself.
			return dropLoopback()
		})
		from.route(t, "127.0.0.0/8", from.via)
		from.expectNothing(t, "tcp", "127.0.0.1:8080")
	}
}

func TestNobodyElseSpeaksFromLoopback(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "c")
	for _, name := range []string{"all", "tt0"} {
		must(t, writeSysctl("ipv4/conf/"+name+"/rp_filter", "0"))
	}
	service, err := net.ListenPacket("udp4", "172.30.1.1:500")
	must(t, err)
	defer service.Close()
	c.do(t, func() error {
		if err := writeSysctl("ipv4/conf/eth0/route_localnet", "1"); err != nil {
			return err
		}
		for _, from := range []string{"127.0.0.2:0", ":0"} {
			conn, err := net.ListenPacket("udp4", from)
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.WriteTo([]byte("x"), service.LocalAddr()); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, service.SetDeadline(time.Now().Add(3*time.Second)))
	if _, from, err := service.ReadFrom(make([]byte, 10)); err != nil || from.(*net.UDPAddr).IP.String() != "172.30.1.2" {
		t.Errorf("the host heard %v (%v)", from, err)
	}
}

func TestUnpublishedIsClosedToOutside(t *testing.T) {
	if !asHost(t) {
		return
	}
	client := machine(t, "lan0", 1)
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "web", Port{HostPort: 8080, ContainerPort: 80})
	c.serve(t, "tcp", 80, "web")
	c.serve(t, "tcp", 81, "inner")
	client.route(t, "172.30.1.0/24", "10.99.1.1")
	client.expectNothing(t, "tcp", "172.30.1.2:81")
	client.expectNothing(t, "tcp", "172.30.1.2:80")
}

func TestBridgesAreIsolated(t *testing.T) {
	if !asHost(t) {
		return
	}
	one, two := open(t, testConfig("tt1", 1)), open(t, testConfig("tt2", 2))
	a := attach(t, one, "a", Port{HostPort: 8080, ContainerPort: 80})
	b := attach(t, two, "b")
	a.serve(t, "tcp", 80, "a")
	b.serve(t, "tcp", 80, "b")
	a.expectNothing(t, "tcp", "172.30.2.2:80")
	b.expectNothing(t, "tcp", "172.30.1.2:80")
	b.expect(t, "tcp", "172.30.2.1:8080", "a 172.30.1.1")
}

// A frame for bridges passes none of the rules.
func TestNobodyIsLearnedInANeighboursPlace(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	victim, thief := attach(t, s, "victim"), attach(t, s, "thief")
	victim.serve(t, "tcp", 80, "victim")
	place{}.expect(t, "tcp", victim.Endpoints[0].Address.Addr().String()+":80", "victim 172.30.1.1")
	mac, err := net.ParseMAC(victim.Endpoints[0].MAC)
	must(t, err)
	for _, last := range []byte{0x00, 0x02, 0x03, 0x0e} { // spanning tree, LACP, 802.1X, LLDP
		frame := append([]byte{0x01, 0x80, 0xc2, 0, 0, last}, mac...)
		thief.do(t, func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			eth0, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			return unix.Sendto(fd, append(frame, make([]byte, 50)...), 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
		})
	}
	port, err := netlink.LinkByName(victim.Endpoints[0].HostInterface)
	must(t, err)
	known, err := netlink.NeighList(0, unix.AF_BRIDGE)
	must(t, err)
	for _, n := range known {
		if n.HardwareAddr.String() == mac.String() && n.LinkIndex != port.Attrs().Index {
			t.Error("the bridge takes the thief for the victim")
		}
	}
}

func TestRangesReachEachPort(t *testing.T) {
	if !asHost(t) {
		return
	}
	client := machine(t, "lan0", 1)
	s := open(t, testConfig("tt0", 1))
	loopback := hostPorts(7000, 7003, 0)
	for i := range loopback {
		loopback[i].HostIP = addr("127.0.0.1")
	}
	ports := append(hostPorts(9000, 9010, 0), hostPorts(8000, 8010, 1000-500)...)
	c := attach(t, s, "many", append(ports, loopback...)...)
	for _, p := range append(ports, loopback...) {
		c.serve(t, "tcp", int(p.ContainerPort), fmt.Sprint("port ", p.ContainerPort))
	}
	for _, p := range ports {
		want := fmt.Sprintf("port %d ", p.ContainerPort)
		client.expect(t, "tcp", fmt.Sprint("10.99.1.1:", p.HostPort), want+"10.99.1.2")
		place{}.expect(t, "tcp", fmt.Sprint("127.0.0.1:", p.HostPort), want+"172.30.1.1")
	}
	for _, p := range loopback {
		place{}.expect(t, "tcp", fmt.Sprint("127.0.0.1:", p.HostPort), fmt.Sprintf("port %d 172.30.1.1", p.ContainerPort))
		client.expectNothing(t, "tcp", fmt.Sprint("10.99.1.1:", p.HostPort))
	}
	// Two runs of equal ports are an element each, the shifted ports one each.
	if _, n := remains(t, s); n != 2+11 {
		t.Errorf("%d elements, want 13", n)
	}
}

func TestNamespaceIsFurnished(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, testConfig("tt0", 1))
	c := attach(t, s, "c")
	c.do(t, func() error {
		all, err := os.ReadFile("/proc/thread-self/net/if_inet6")
		if err != nil {
			return err
		}
		if n := countLines(all); n != 1 {
			t.Errorf("the namespace has %d IPv6 addresses, want lo's alone:\n%s", n, all)
		}
		return nil
	})
	if c.Endpoints[0].MAC != "02:42:ac:1e:01:02" || c.Endpoints[0].Address.String() != "172.30.1.2/24" || c.Endpoints[0].Gateway != s.Gateway() {
		t.Errorf("endpoint %+v", c.Endpoints)
	}
}
