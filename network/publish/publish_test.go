package publish

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

func TestCheck(t *testing.T) {
	if err := Check([]Port{{Proto: "sctp"}, {}, {HostPort: 80, HostPortEnd: 80}}); err != nil {
		t.Error(err)
	}
	for _, p := range []Port{{Proto: "icmp"}, {HostPort: 81, HostPortEnd: 80}} {
		if err := Check([]Port{p}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// Where a port is published, by the families in which the container has a way out.
func TestHosts(t *testing.T) {
	four, six := netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("fd00::2")
	any4, lo := netip.IPv4Unspecified(), netip.MustParseAddr("127.0.0.1")
	for name, c := range map[string]struct {
		at   Place
		port Port
		want string
	}{
		"both":                  {Place{To4: four, To6: six, Bind4: any4}, Port{}, "0.0.0.0 ::"},
		"IPv4 alone is relayed": {Place{To4: four, Bind4: any4}, Port{}, "0.0.0.0 ::"},
		"but not SCTP":          {Place{To4: four, Bind4: any4}, Port{Proto: "sctp"}, "0.0.0.0"},
		"nor without the relay": {Place{To4: four, Bind4: any4, NoProxy: true}, Port{}, "0.0.0.0"},
		"IPv6 alone":            {Place{To6: six}, Port{}, "::"},
		"the network's address": {Place{To4: four, To6: six, Bind4: lo}, Port{}, "127.0.0.1"},
		"its addresses":         {Place{To4: four, To6: six, Bind4: lo, Bind6: six}, Port{}, "127.0.0.1 fd00::2"},
		"an address":            {Place{To4: four, To6: six, Bind4: any4}, Port{HostIP: lo}, "127.0.0.1"},
		"an IPv6 address":       {Place{To4: four, To6: six, Bind4: any4}, Port{HostIP: netip.IPv6Loopback()}, "::1"},
		"no way out":            {Place{Bind4: any4}, Port{}, ""},
		"no way out for IPv4":   {Place{To6: six, Bind4: any4}, Port{HostIP: lo}, ""},
		"a mapped IPv4 address": {Place{To4: four, Bind4: any4}, Port{HostIP: netip.MustParseAddr("::ffff:127.0.0.1")}, "127.0.0.1"},
	} {
		if got := strings.Trim(fmt.Sprint(c.at.hosts(c.port)), "[]"); got != c.want {
			t.Errorf("%s: %s instead of %s", name, got, c.want)
		}
	}
}

func closed(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// A port that another container has is told from one that a program has, and what
// was taken before is given back.
func TestReserve(t *testing.T) {
	lo := netip.MustParseAddr("127.0.0.1")
	at := Place{To4: netip.MustParseAddr("172.17.0.2"), Bind4: netip.IPv4Unspecified()}
	nobody := func() []Published { return nil }
	first, sockets, err := at.Reserve([]Port{{HostIP: lo, ContainerPort: 80}}, nobody)
	if err != nil || len(first) != 1 || len(sockets) != 1 || first[0].HostPort == 0 || first[0].Proto != "tcp" {
		t.Fatalf("%+v, %v", first, err)
	}
	defer closed(sockets)
	port := first[0].HostPort

	free, freed, err := at.Reserve([]Port{{HostIP: lo}}, nobody) // a port that is there for the test
	if err != nil {
		t.Fatal(err)
	}
	closed(freed)
	wanted := []Port{{HostIP: lo, HostPort: free[0].HostPort}, {HostIP: lo, HostPort: port, ContainerPort: 81}}
	if _, _, err := at.Reserve(wanted, func() []Published { return first }); err == nil || err.Error() != fmt.Sprintf("Bind for 127.0.0.1:%d failed: port is already allocated", port) {
		t.Error(err)
	}
	if _, _, err := at.Reserve(wanted, nobody); !errors.Is(err, unix.EADDRINUSE) || !strings.HasPrefix(err.Error(), fmt.Sprintf("failed to bind host port 127.0.0.1:%d/tcp: ", port)) {
		t.Error(err)
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(lo, free[0].HostPort).String())
	if err != nil {
		t.Fatalf("what was taken before was not given back: %v", err)
	}
	l.Close()

	// Of a range the first that is free.
	got, more, err := at.Reserve([]Port{{HostIP: lo, HostPort: port, HostPortEnd: port + 20}}, nobody)
	if err != nil || got[0].HostPort <= port {
		t.Errorf("%+v, %v", got, err)
	}
	closed(more)

	// A container that is reached at its own address takes nothing.
	at.Routed4 = true
	got, more, err = at.Reserve([]Port{{HostIP: lo, HostPort: port, ContainerPort: 80}}, nobody)
	if want := []Published{{lo, 0, 80, "tcp"}}; err != nil || len(more) > 0 || !slices.Equal(got, want) {
		t.Errorf("%+v, %d sockets, %v", got, len(more), err)
	}
}

// Many are bound by several at once, and stay in their order.
func TestReserveMany(t *testing.T) {
	at := Place{To4: netip.MustParseAddr("172.17.0.2"), NoProxy: true}
	lo := netip.MustParseAddr("127.0.0.7")
	var ports []Port
	for i := range 2*manyPorts + 3 {
		ports = append(ports, Port{HostIP: lo, HostPort: uint16(21000 + i), ContainerPort: uint16(i + 1), Proto: "udp"})
	}
	got, sockets, err := at.Reserve(ports, func() []Published { return nil })
	defer closed(sockets)
	if err != nil || len(got) != len(ports) || len(sockets) != len(ports) {
		t.Fatalf("%d ports, %d sockets, %v", len(got), len(sockets), err)
	}
	for i, p := range got {
		if p.HostPort != ports[i].HostPort || p.ContainerPort != ports[i].ContainerPort {
			t.Fatalf("the port %d is %+v", i, p)
		}
	}
}
