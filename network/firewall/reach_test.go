package firewall

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tarehq/tare/internal/testutil"
)

func publish(ports ...int) (list []Port) {
	for i := 0; i < len(ports); i += 2 {
		for _, proto := range []string{"tcp", "udp"} {
			list = append(list, Port{any4, uint16(ports[i]), uint16(ports[i+1]), proto}, Port{any6, uint16(ports[i]), uint16(ports[i+1]), proto})
		}
	}
	return list
}

func TestPublishedInBothFamilies(t *testing.T) {
	if !asHost(t) {
		return
	}
	l := newLab(t)
	one, two := l.network("one", 1, nil), l.network("two", 2, nil)
	client := l.lan("lan0", 2)
	web := l.container(one, 2, append(publish(8080, 80), Port{addr("192.0.2.1"), 8090, 80, "tcp"}, Port{addr("2001:db8:2::1"), 8090, 80, "tcp"}, Port{addr("127.0.0.1"), 8091, 80, "tcp"})...)
	neighbour, stranger := l.container(one, 3), l.container(two, 4)
	web.serve(t, 80, "web")
	l.apply()
	for _, proto := range []string{"tcp", "udp"} {
		client.expect(t, proto, "192.0.2.1:8080", "web 192.0.2.2")
		client.expect(t, proto, "[2001:db8:2::1]:8080", "web 2001:db8:2::2")
		machine{}.expect(t, proto, "127.0.0.1:8080", "web 10.0.1.1")
		machine{}.expect(t, proto, "192.0.2.1:8080", "web 192.0.2.1")
		machine{}.expect(t, proto, "[2001:db8:2::1]:8080", "web 2001:db8:2::1")
		// To itself, from its own bridge, from another.
		for _, from := range []machine{web, neighbour, stranger} {
			from.expect(t, proto, "192.0.2.1:8080", gatewayOf("web 10.0.1.1", from))
			from.expect(t, proto, "[2001:db8:2::1]:8080", gatewayOf("web fd00:1::1", from))
		}
	}
	client.expect(t, "tcp", "192.0.2.1:8090", "web 192.0.2.2")
	client.expect(t, "tcp", "[2001:db8:2::1]:8090", "web 2001:db8:2::2")
	machine{}.expectNothing(t, "tcp", "127.0.0.1:8090")
	machine{}.expect(t, "tcp", "127.0.0.1:8091", "web 10.0.1.1")
	client.expectNothing(t, "tcp", "192.0.2.1:8091")
}

// gatewayOf: containers appear as the gateway of the bridge that is published
// to, wherever they are.
func gatewayOf(want string, _ machine) string { return want }

func TestNetworksDoNotReachEachOther(t *testing.T) {
	if !asHost(t) {
		return
	}
	l := newLab(t)
	one, two := l.network("one", 1, nil), l.network("two", 2, nil)
	inner := l.network("inner", 3, func(n *Network) { n.Internal = true })
	client := l.lan("lan0", 2)
	a, b, c := l.container(one, 2, publish(8080, 80)...), l.container(two, 3), l.container(inner, 4, publish(8081, 80)...)
	d := l.container(inner, 5)
	a2 := l.container(one, 6)
	for _, m := range []machine{a, b, c, d, client} {
		m.serve(t, 80, "found")
	}
	l.apply()
	// A LAN neighbour and containers that know the way by the host.
	for _, net := range []string{"10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"} {
		client.route(t, net, "192.0.2.1")
	}
	for _, net := range []string{"fd00:1::/64", "fd00:2::/64", "fd00:3::/64"} {
		client.route(t, net, "2001:db8:2::1")
	}
	var group sync.WaitGroup
	nothing := func(m machine, proto, address string) {
		group.Go(func() { m.expectNothing(t, proto, address) })
	}
	for _, proto := range []string{"tcp", "udp"} {
		for i, m := range []machine{a, b, c} {
			for j := 1; j <= 3; j++ {
				if j != i+1 {
					nothing(m, proto, fmt.Sprintf("10.0.%d.%d:80", j, j+1))
					nothing(m, proto, fmt.Sprintf("[fd00:%d::%d]:80", j, j+1))
				}
			}
		}
		for j := 1; j <= 3; j++ {
			nothing(client, proto, fmt.Sprintf("10.0.%d.%d:80", j, j+1))
			nothing(client, proto, fmt.Sprintf("[fd00:%d::%d]:80", j, j+1))
		}
		// Within a bridge they do, and out of it but for the internal one.
		a2.expect(t, proto, "10.0.1.2:80", "found 10.0.1.6")
		a2.expect(t, proto, "[fd00:1::2]:80", "found fd00:1::6")
		d.expect(t, proto, "10.0.3.4:80", "found 10.0.3.5")
		d.expect(t, proto, "[fd00:3::4]:80", "found fd00:3::5")
		b.expect(t, proto, "192.0.2.2:80", "found 192.0.2.1")
		b.expect(t, proto, "[2001:db8:2::2]:80", "found 2001:db8:2::1")
		nothing(c, proto, "192.0.2.2:80")
		nothing(c, proto, "[2001:db8:2::2]:80")
		nothing(c, proto, "192.0.2.1:8080") // published, but outside
		nothing(client, proto, "192.0.2.1:8081")
	}
	group.Wait()
}

func TestGatewayModes(t *testing.T) {
	if !asHost(t) {
		return
	}
	l := newLab(t)
	routed := l.network("routed", 1, func(n *Network) { n.Mode4, n.Mode6 = ModeRouted, ModeRouted })
	open := l.network("open", 2, func(n *Network) { n.Mode4, n.Mode6 = ModeUnprotected, ModeUnprotected })
	trusted := l.network("trusted", 3, func(n *Network) { n.Trusted = []string{"lan0"} })
	bare := l.network("bare", 4, func(n *Network) { n.Masquerade = false })
	friend, client := l.lan("lan0", 2), l.lan("lan1", 3)
	port := []Port{{any4, 0, 80, "tcp"}, {any6, 0, 80, "tcp"}}
	a, b, c := l.container(routed, 2, port...), l.container(open, 3), l.container(trusted, 4, publish(8080, 80)...)
	d := l.container(bare, 5)
	for _, m := range []machine{a, b, c} {
		m.serve(t, 80, "found")
		m.serve(t, 81, "found")
	}
	client.serve(t, 80, "outside")
	l.apply()
	for i, m := range []machine{friend, client} {
		for j := 1; j <= 4; j++ {
			m.route(t, fmt.Sprintf("10.0.%d.0/24", j), fmt.Sprintf("192.0.%d.1", i+2))
			m.route(t, fmt.Sprintf("fd00:%d::/64", j), fmt.Sprintf("2001:db8:%d::1", i+2))
		}
	}
	client.expect(t, "tcp", "10.0.1.2:80", "found 192.0.3.2")
	client.expect(t, "tcp", "[fd00:1::2]:80", "found 2001:db8:3::2")
	client.expectNothing(t, "tcp", "10.0.1.2:81")
	client.expectNothing(t, "tcp", "[fd00:1::2]:81")
	client.expect(t, "tcp", "10.0.2.3:81", "found 192.0.3.2")
	c.expectNothing(t, "tcp", "10.0.2.3:81") // open to the outside, not to other networks
	friend.expect(t, "tcp", "10.0.3.4:80", "found 192.0.2.2")
	friend.expectNothing(t, "tcp", "10.0.3.4:81")
	client.expectNothing(t, "tcp", "10.0.3.4:80")
	a.expect(t, "tcp", "192.0.3.2:80", "outside 10.0.1.2") // under its own address
	d.expect(t, "tcp", "192.0.3.2:80", "outside 10.0.4.5")
	b.expect(t, "tcp", "192.0.3.2:80", "outside 192.0.3.1")

	l.options.DirectRouting = true
	l.apply()
	client.expect(t, "tcp", "10.0.3.4:80", "found 192.0.3.2")
	client.expectNothing(t, "tcp", "10.0.3.4:81")

	for _, address := range []string{"10.0.1.2", "fd00:1::2"} {
		if !client.pings(t, address) {
			t.Errorf("%s, to which the client is routed, does not answer a ping", address)
		}
	}
	if client.pings(t, "10.0.3.4") {
		t.Error("a container whose network is not routed answers a ping")
	}

	// What the host's own rules have marked is let into all bridges.
	l.options.AcceptMark, l.options.AcceptMask = 0x1, 0xff
	l.apply()
	client.expectNothing(t, "tcp", "10.0.3.4:81")
	markFrom(t, "lan1", 0x301)
	client.expect(t, "tcp", "10.0.3.4:81", "found 192.0.3.2")
	friend.expectNothing(t, "tcp", "10.0.3.4:81")
}

// markFrom has all packets marked that come in by the interface.
func markFrom(t testing.TB, device string, mark uint32) {
	t.Helper()
	conn, err := nftables.New()
	must(t, err)
	table := conn.AddTable(&nftables.Table{Name: "marks", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{Name: "marks", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(named(iifname, device).exprs(nil),
		&expr.Immediate{Register: word(0), Data: nativeUint32(mark)}, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: word(0)})})
	must(t, conn.Flush())
}

// pings tells whether the address answers an echo request.
func (m machine) pings(t testing.TB, address string) (answered bool) {
	t.Helper()
	network, listen, message := "ip4:icmp", "0.0.0.0", []byte{8, 0, 0, 0, 0, 7, 0, 1}
	if strings.Contains(address, ":") {
		network, listen, message = "ip6:ipv6-icmp", "::", []byte{128, 0, 0, 0, 0, 7, 0, 1} // its checksum is the kernel's
	} else {
		sum := ^uint16(8<<8 + 7 + 1)
		message[2], message[3] = byte(sum>>8), byte(sum)
	}
	m.do(t, func() error {
		c, err := net.ListenPacket(network, listen)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.WriteTo(message, &net.IPAddr{IP: net.ParseIP(address)}); err != nil {
			return err
		}
		must(t, c.SetReadDeadline(time.Now().Add(testutil.Patience(time.Second))))
		for buf := make([]byte, 100); !answered; {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return nil
			}
			answered = n >= 8 && (buf[0] == 0 || buf[0] == 129)
		}
		return nil
	})
	return answered
}

func TestLoopbackPortsAreTheHostsAlone(t *testing.T) {
	if !asHost(t) {
		return
	}
	l := newLab(t)
	one := l.network("one", 1, nil)
	client := l.lan("lan0", 2)
	web := l.container(one, 2, Port{addr("127.0.0.1"), 8080, 80, "tcp"})
	web.serve(t, 80, "web")
	l.apply()
	mustSet(t, "ipv4/conf/lan0/route_localnet", "1")
	client.do(t, func() error {
		if err := ensureSysctl("ipv4/conf/eth0/route_localnet", "1"); err != nil {
			return err
		}
		return takeLoopback()
	})
	client.route(t, "127.0.0.0/8", "192.0.2.1")
	client.expectNothing(t, "tcp", "127.0.0.1:8080")
	machine{}.expect(t, "tcp", "127.0.0.1:8080", "web 10.0.1.1")
}
