package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/network/link"
)

func stored(t testing.TB) Config {
	c := testConfig("tt0", 1)
	c.Root = filepath.Join(t.TempDir(), "networks")
	c.Pools = []Pool{{Base: netip.MustParsePrefix("10.77.0.0/16"), Size: 24}}
	return c
}

func create(t testing.TB, s *Service, req wire.CreateRequest) Network {
	t.Helper()
	resp, err := s.Create(t.Context(), req)
	must(t, err)
	n, err := s.Lookup(resp.ID)
	must(t, err)
	return n
}

func on() *bool { b := true; return &b }

func off() *bool { b := false; return &b }

func askedFor(text string) *wire.IPAM {
	return &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix(text)}}}
}

func attachTo(t testing.TB, s *Service, name string, wants ...Want) attached {
	t.Helper()
	a, err := s.Attach(t.Context(), Request{ContainerID: "0123456789abcdef-" + name, Name: name, Wants: wants})
	must(t, err)
	t.Cleanup(func() { letGo(a) })
	return attached{a, place{a.NetNS}}
}

// routes are the default routes in the place, "eth0 10.0.0.1" or "none".
func (p place) routes(t testing.TB, family int) string {
	t.Helper()
	text := "none"
	p.do(t, func() error {
		list, err := netlink.RouteList(nil, family)
		if err != nil {
			return err
		}
		for _, r := range list {
			if r.Gw != nil && isDefault(r.Dst) {
				l, err := netlink.LinkByIndex(r.LinkIndex)
				if err != nil {
					return err
				}
				text = l.Attrs().Name + " " + r.Gw.String()
			}
		}
		return nil
	})
	return text
}

// links are the names of the interfaces in the place.
func (p place) links(t testing.TB) string {
	t.Helper()
	var names []string
	p.do(t, func() error {
		list, err := netlink.LinkList()
		for _, l := range list {
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	return strings.Join(names, " ")
}

func exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func TestNetworkComesAndGoes(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.Spare = 2
	s := open(t, c)
	before := countFiles(t)
	n := create(t, s, wire.CreateRequest{Name: "back", Labels: map[string]string{"a": "b"}, Options: map[string]string{optionMTU: "1400"}})
	if n.Bridge != "br-"+n.ID[:12] || n.Driver != "bridge" || n.Scope != "local" || n.IPAM.Driver != "default" || n.IPAM.Config[0].Subnet.String() != "10.77.0.0/24" ||
		n.IPAM.Config[0].Gateway.String() != "10.77.0.1" || !n.EnableIPv4 || n.EnableIPv6 || n.Labels["a"] != "b" || n.Predefined || !n.HasNames() {
		t.Errorf("%+v", n)
	}
	if l, err := netlink.LinkByName(n.Bridge); err != nil || l.Attrs().MTU != 1400 || l.Attrs().Flags&1 == 0 {
		t.Errorf("the bridge is %+v, %v", l, err)
	}
	one, two := attachTo(t, s, "one", Want{Network: "back"}), attachTo(t, s, "two", Want{Network: n.ID[:8], Aliases: []string{"db"}})
	two.serve(t, "tcp", 80, "two")
	one.expect(t, "tcp", "10.77.0.3:80", "two 10.77.0.2")
	if got := one.routes(t, unix.AF_INET); got != "eth0 10.77.0.1" {
		t.Errorf("default route %s", got)
	}
	if got := strings.Join(two.Endpoints[0].DNSNames, " "); got != "two db 0123456789ab" {
		t.Errorf("names %s", got)
	}
	in, err := s.Inspect("back")
	must(t, err)
	if e := in.Containers["0123456789abcdef-one"]; len(in.Containers) != 2 || e.Name != "one" || e.IPv4Address.String() != "10.77.0.2/24" {
		t.Errorf("inspect %+v", in.Containers)
	}
	if u := in.Status.IPAM.Subnets[n.IPAM.Config[0].Subnet]; u.IPsInUse != 5 || u.DynamicIPsAvailable != 251 {
		t.Errorf("usage %+v", u)
	}
	err = s.Remove(t.Context(), "back")
	want := fmt.Sprintf(`error while removing network: network back has active endpoints (name:"one" id:"%s", name:"two" id:"%s")`, one.Endpoints[0].ID[:12], two.Endpoints[0].ID[:12])
	if !errors.Is(err, fault.Forbidden) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	for _, a := range []attached{one, two} {
		must(t, s.Detach(t.Context(), a.Sandbox))
		letGo(a.Attachment)
	}
	must(t, s.Remove(t.Context(), "back"))
	if _, err := s.Lookup("back"); !errors.Is(err, fault.NotFound) || exists(n.Bridge) {
		t.Errorf("after the removal: %v", err)
	}
	if files, _ := os.ReadDir(c.Root); len(files) > 1 || len(files) == 1 && !strings.HasSuffix(files[0].Name(), ".next") {
		t.Errorf("left on disk: %v", files)
	}
	if again := create(t, s, wire.CreateRequest{Name: "back"}); again.ID == n.ID || again.IPAM.Config[0].Subnet != n.IPAM.Config[0].Subnet {
		t.Errorf("made again: %+v", again)
	}
	must(t, s.Remove(t.Context(), "back"))
	must(t, s.Close(t.Context()))
	if interfaces, _ := remains(t, s); len(interfaces) > 0 {
		t.Errorf("interfaces left: %v", interfaces)
	}
	if after := countFiles(t); after > before {
		t.Errorf("%d files open before, %d after", before, after)
	}
}

func TestNetworkRefusals(t *testing.T) {
	if !asHost(t) {
		return
	}
	machine(t, "lan0", 1) // 10.99.1.0/24
	s := open(t, stored(t))
	create(t, s, wire.CreateRequest{Name: "taken", IPAM: askedFor("10.9.0.0/24"), Options: map[string]string{optionBridgeName: "mine"}})
	create(t, s, wire.CreateRequest{Name: "config", ConfigOnly: true, IPAM: askedFor("10.10.0.0/24")})
	bridge := func(key, value string) wire.CreateRequest {
		return wire.CreateRequest{Name: "n", Options: map[string]string{"com.docker.network." + key: value}}
	}
	for _, c := range []struct {
		req  wire.CreateRequest
		kind fault.Kind
		text string
	}{
		{wire.CreateRequest{}, fault.Invalid, "invalid name: name is empty"},
		{wire.CreateRequest{Name: "taken"}, fault.Conflict, "network with name taken already exists"},
		{wire.CreateRequest{Name: "host"}, fault.Forbidden, "operation is not permitted on predefined host network "},
		{wire.CreateRequest{Name: "default"}, fault.Forbidden, "operation is not permitted on predefined default network "},
		{wire.CreateRequest{Name: "n", Driver: "nosuch"}, fault.NotFound, "could not find plugin nosuch in v1 plugin registry: plugin not found"},
		{wire.CreateRequest{Name: "n", Driver: "host"}, fault.Forbidden, `only one instance of "host" network is allowed`},
		{wire.CreateRequest{Name: "n", Driver: "overlay"}, fault.Forbidden, "This node is not a swarm manager."},
		{wire.CreateRequest{Name: "n", Scope: "swarm"}, fault.Forbidden, "cannot create a swarm scoped network when swarm is not active"},
		{wire.CreateRequest{Name: "n", Ingress: true}, fault.Forbidden, "Ingress network can only be global scope network"},
		{wire.CreateRequest{Name: "n", EnableIPv4: off()}, fault.Invalid, "IPv4 or IPv6 must be enabled"},
		{wire.CreateRequest{Name: "n", IPAM: askedFor("10.9.0.0/25")}, fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space"},
		{wire.CreateRequest{Name: "n", IPAM: askedFor("172.30.0.0/16")}, fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space"},
		{wire.CreateRequest{Name: "n", IPAM: askedFor("10.99.0.0/16")}, fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space: the host has a route to 10.99.1.0/24"},
		{wire.CreateRequest{Name: "n", IPAM: askedFor("10.20.0.1/24")}, fault.Invalid, "invalid network config:\ninvalid subnet 10.20.0.1/24: it should be 10.20.0.0/24"},
		{wire.CreateRequest{Name: "n", IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.20.0.0/24"), Gateway: addr("10.21.0.1")}}}}, fault.Invalid,
			"invalid network config:\ninvalid gateway 10.21.0.1: parent subnet 10.20.0.0/24 doesn't contain this address"},
		{wire.CreateRequest{Name: "n", IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.20.0.0/24"), IPRange: netip.MustParsePrefix("10.21.0.0/16")}}}}, fault.Invalid,
			"invalid network config:\n* invalid ip-range 10.21.0.0/16: CIDR block is bigger than its parent subnet 10.20.0.0/24\n* invalid ip-range 10.21.0.0/16: parent subnet 10.20.0.0/24 doesn't contain ip-range"},
		{wire.CreateRequest{Name: "n", IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.20.0.0/24")}, {Subnet: netip.MustParsePrefix("10.21.0.0/24")}}}}, fault.Forbidden,
			"bridge driver doesn't support multiple subnets"},
		{wire.CreateRequest{Name: "n", IPAM: &wire.IPAM{Driver: "null"}}, fault.Invalid, "ipv4 pool is empty"},
		{bridge("bridge.name", "mine"), fault.Forbidden, "networks have same bridge name"},
		{bridge("bridge.name", "lan0"), fault.Conflict, "the interface lan0 is a veth and not a bridge: choose another name"},
		{bridge("bridge.name", "a/b"), fault.Invalid, "failed to parse com.docker.network.bridge.name value: a/b (invalid interface name"},
		{bridge("bridge.gateway_mode_ipv4", "isolated"), fault.Internal, "gateway mode 'isolated' can only be used for an internal network"},
		{bridge("bridge.gateway_mode_ipv4", "bent"), fault.Invalid, "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: bent (unknown gateway mode bent)"},
		{bridge("driver.mtu", "12"), fault.Invalid, "invalid MTU number: 12"},
		{wire.CreateRequest{Name: "n", ConfigFrom: &wire.ConfigReference{Network: "taken"}}, fault.NotFound, `configuration network "taken" does not exist`},
		{wire.CreateRequest{Name: "n", ConfigFrom: &wire.ConfigReference{Network: "config"}, Labels: map[string]string{"a": "b"}}, fault.Forbidden, "user-specified configurations are not supported"},
		{wire.CreateRequest{Name: "n", ConfigOnly: true, Internal: true}, fault.Forbidden, "configuration network can only contain network specific fields."},
	} {
		_, err := s.Create(t.Context(), c.req)
		if err == nil || !strings.Contains(err.Error(), c.text) || fault.KindOf(err) != c.kind {
			t.Errorf("%+v: %v (%v), want %s", c.req, err, fault.KindOf(err), c.text)
		}
		if _, err := s.Lookup("n"); !errors.Is(err, fault.NotFound) {
			t.Fatalf("%+v left a network", c.req)
		}
	}
	if _, err := s.Attach(t.Context(), Request{Wants: []Want{{Network: "config"}}}); !errors.Is(err, fault.Forbidden) {
		t.Errorf("a place on a network of configuration: %v", err)
	}
	of := create(t, s, wire.CreateRequest{Name: "of", ConfigFrom: &wire.ConfigReference{Network: "config"}})
	if of.IPAM.Config[0].Subnet.String() != "10.10.0.0/24" || of.ConfigFrom.Network != "config" || of.Driver != "bridge" {
		t.Errorf("%+v", of)
	}
	if err := s.Remove(t.Context(), "config"); err == nil || !strings.Contains(err.Error(), `configuration network "config" is in use`) {
		t.Errorf("%v", err)
	}
	if err := s.Remove(t.Context(), "bridge"); !errors.Is(err, fault.Forbidden) || err.Error() != "bridge is a pre-defined network and cannot be removed" {
		t.Errorf("%v", err)
	}
	if err := s.Remove(t.Context(), "nosuch"); !errors.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}

func TestDualStack(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.IPv6, c.Spare = true, 1
	s := open(t, c)
	if !s.Gateway6().IsValid() || s.Gateway6().As16()[0] != 0xfd {
		t.Errorf("the default bridge has %s", s.Gateway6())
	}
	create(t, s, wire.CreateRequest{Name: "both"})
	create(t, s, wire.CreateRequest{Name: "four", EnableIPv6: off()})
	six := create(t, s, wire.CreateRequest{Name: "six", EnableIPv4: off(), IPAM: askedFor("fd00:9::/64")})
	if len(six.IPAM.Config) != 1 || six.IPAM.Config[0].Gateway.String() != "fd00:9::1" {
		t.Errorf("%+v", six.IPAM)
	}
	for range 2 {
		if a := attachTo(t, s, "none", Want{Network: "both", WithoutIPv6: true}, Want{Network: "bridge", WithoutIPv6: true}); a.Endpoints[0].Address6.IsValid() ||
			a.Endpoints[1].Address6.IsValid() || !a.Endpoints[0].Address.IsValid() || a.routes(t, unix.AF_INET6) != "none" {
			t.Errorf("with IPv6 off: %+v", a.Endpoints)
		} else {
			must(t, s.Detach(t.Context(), a.Sandbox))
		}
	}
	for _, n := range []string{"bridge", "both", "six", "four"} {
		for range 2 { // the second has a namespace that waited
			a, b := attachTo(t, s, n+"a", Want{Network: n}), attachTo(t, s, n+"b", Want{Network: n})
			ea, eb := a.Endpoints[0], b.Endpoints[0]
			if n == "four" {
				if ea.Address6.IsValid() || a.routes(t, unix.AF_INET6) != "none" {
					t.Errorf("%s: %+v", n, ea)
				}
			} else if got := a.routes(t, unix.AF_INET6); got != "eth0 "+ea.Gateway6.String() {
				t.Errorf("%s has the route %s", n, got)
			}
			if n != "six" {
				b.serve(t, "tcp", 80, "b")
				a.expect(t, "tcp", eb.Address.Addr().String()+":80", "b "+ea.Address.Addr().String())
			} else if ea.Address.IsValid() || a.routes(t, unix.AF_INET) != "none" {
				t.Errorf("%s: %+v", n, ea)
			}
			if n != "four" {
				b.serve6(t, 81, "b")
				a.expect6(t, netip.AddrPortFrom(eb.Address6.Addr(), 81), "b "+ea.Address6.Addr().String())
				a.expect6(t, netip.AddrPortFrom(ea.Gateway6, 82), "") // the host answers, if only to refuse
			}
		}
	}
}

func TestConnectAndDisconnect(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.Spare = 1
	s := open(t, c)
	create(t, s, wire.CreateRequest{Name: "a", IPAM: askedFor("10.1.0.0/24")})
	create(t, s, wire.CreateRequest{Name: "b", IPAM: askedFor("10.2.0.0/24")})
	create(t, s, wire.CreateRequest{Name: "in", IPAM: askedFor("10.3.0.0/24"), Internal: true})
	other := attachTo(t, s, "other", Want{Network: "b"})
	other.serve(t, "tcp", 80, "other")
	ct := attachTo(t, s, "c", Want{Network: "in"})
	if ct.routes(t, unix.AF_INET) != "none" {
		t.Error("a container on an internal network has a way out")
	}
	box := ct.Sandbox
	connect := func(w Want) {
		t.Helper()
		after, _, err := s.Connect(t.Context(), box, ct.NetNS, w, nil)
		must(t, err)
		box = after
	}
	leave := func(network string) {
		t.Helper()
		n, err := s.Lookup(network)
		must(t, err)
		after, _, err := s.Disconnect(t.Context(), box, ct.NetNS, box.On(n.ID).ID, nil)
		must(t, err)
		box = after
	}
	expect := func(links, route string) {
		t.Helper()
		if gotLinks, gotRoute := ct.links(t), ct.routes(t, unix.AF_INET); gotLinks != links || gotRoute != route {
			t.Errorf("%s by %s, want %s by %s", gotLinks, gotRoute, links, route)
		}
	}
	connect(Want{Network: "b"})
	expect("lo eth0 eth1", "eth1 10.2.0.1")
	ct.expect(t, "tcp", "10.2.0.2:80", "other "+box.Endpoints[1].Address.Addr().String())
	connect(Want{Network: "a", Interface: "wan", MAC: "02:00:00:00:00:07", Address: addr("10.1.0.77"), Sysctls: []string{"net.ipv4.conf.IFNAME.log_martians=1", "net.ipv4.conf.ifname.arp_notify=1"}})
	expect("lo eth0 eth1 wan", "wan 10.1.0.1") // by name
	if e := box.Endpoints[2]; e.MAC != "02:00:00:00:00:07" || e.Address.String() != "10.1.0.77/24" || e.Interface != "wan" {
		t.Errorf("%+v", e)
	}
	ct.do(t, func() error {
		got, err := os.ReadFile("/proc/sys/net/ipv4/conf/wan/log_martians")
		if err == nil && strings.TrimSpace(string(got)) != "1" {
			err = fmt.Errorf("log_martians is %s", got)
		}
		return err
	})
	leave("a")
	expect("lo eth0 eth1", "eth1 10.2.0.1")
	connect(Want{Network: "bridge", GwPriority: -1})
	expect("lo eth0 eth1 eth2", "eth1 10.2.0.1")
	leave("bridge")
	connect(Want{Network: "bridge", GwPriority: 5})
	expect("lo eth0 eth1 eth2", "eth2 172.30.1.1")
	leave("b")
	expect("lo eth0 eth2", "eth2 172.30.1.1")
	connect(Want{Network: "b"})
	expect("lo eth0 eth2 eth1", "eth2 172.30.1.1")
	leave("bridge")
	leave("b")
	leave("in")
	expect("lo", "none")
	connect(Want{Network: "a"})
	expect("lo eth0", "eth0 10.1.0.1")

	for _, c := range []struct {
		w    Want
		kind fault.Kind
		text string
	}{
		{Want{Network: "a"}, fault.Forbidden, "endpoint with name c already exists in network a"},
		{Want{Network: "nosuch"}, fault.NotFound, "network nosuch not found"},
		{Want{Network: "b", Address: addr("10.9.0.1")}, fault.Invalid, "invalid address 10.9.0.1: It does not belong to any of this network's subnets"},
		{Want{Network: "b", Address: addr("10.2.0.2")}, fault.Forbidden, "Address already in use"},
		{Want{Network: "b", Interface: "eth0"}, fault.Invalid, "the container has an interface eth0 already: choose another name"},
		{Want{Network: "b", Sysctls: []string{"net.ipv4.conf.IFNAME.nosuch=1"}}, fault.Invalid, "the setting net.ipv4.conf.eth1.nosuch=1 cannot be made"},
	} {
		_, _, err := s.Connect(t.Context(), box, ct.NetNS, c.w, nil)
		if err == nil || !strings.Contains(err.Error(), c.text) || fault.KindOf(err) != c.kind {
			t.Errorf("%+v: %v", c.w, err)
		}
	}
	expect("lo eth0", "eth0 10.1.0.1")
	must(t, s.Detach(t.Context(), box))
	if _, _, err := s.Connect(t.Context(), box, ct.NetNS, Want{Network: "b"}, nil); !errors.Is(err, fault.Conflict) {
		t.Errorf("a container that has ended: %v", err)
	}
	letGo(ct.Attachment)
	must(t, s.Detach(t.Context(), other.Sandbox))
	letGo(other.Attachment)
	for _, n := range []string{"a", "b", "in"} {
		must(t, s.Remove(t.Context(), n))
	}
}

// TestPortsFollowTheGateway: what is published leads to the place that has the
// default route, and waits for one.
func TestPortsFollowTheGateway(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, stored(t))
	create(t, s, wire.CreateRequest{Name: "a", IPAM: askedFor("10.1.0.0/24")})
	create(t, s, wire.CreateRequest{Name: "in", IPAM: askedFor("10.3.0.0/24"), Internal: true})
	wanted := []Port{{HostPort: 8080, ContainerPort: 80}}
	a, err := s.Attach(t.Context(), Request{ContainerID: "0123456789abcdef", Name: "c", Wants: []Want{{Network: "in"}}, Ports: wanted})
	must(t, err)
	ct := attached{a, place{a.NetNS}}
	ct.serve(t, "tcp", 80, "c")
	if len(a.Ports) != 0 || len(a.Pending) != 1 || len(a.Sockets) != 0 {
		t.Errorf("published without a way: %+v", a.Sandbox)
	}
	box, sockets, err := s.Connect(t.Context(), a.Sandbox, a.NetNS, Want{Network: "a"}, wanted)
	must(t, err)
	defer closeAll(sockets)
	defer letGo(a)
	if len(box.Ports) == 0 || len(box.Pending) != 0 || len(sockets) == 0 {
		t.Errorf("%+v with %d sockets", box, len(sockets))
	}
	place{}.expect(t, "tcp", "127.0.0.1:8080", "c 10.1.0.1")
	box, _, err = s.Connect(t.Context(), box, a.NetNS, Want{Network: "bridge", GwPriority: 1}, wanted)
	must(t, err)
	place{}.expect(t, "tcp", "127.0.0.1:8080", "c 172.30.1.1")
	n, err := s.Lookup("bridge")
	must(t, err)
	box, _, err = s.Disconnect(t.Context(), box, a.NetNS, box.On(n.ID).ID, wanted)
	must(t, err)
	place{}.expect(t, "tcp", "127.0.0.1:8080", "c 10.1.0.1")
	// Without any way out they are somebody else's to take, and come back with the next.
	box, _, err = s.Disconnect(t.Context(), box, a.NetNS, box.Gateway4().ID, wanted)
	must(t, err)
	if len(box.Ports) != 0 || len(box.Pending) != 1 {
		t.Errorf("without a way out: %+v", box)
	}
	closeAll(sockets) // as the supervising process does
	other := attach(t, s, "other", wanted...)
	must(t, s.Detach(t.Context(), other.Sandbox))
	closeAll(other.Sockets)
	box, sockets, err = s.Connect(t.Context(), box, a.NetNS, Want{Network: "a"}, wanted)
	must(t, err)
	defer closeAll(sockets)
	place{}.expect(t, "tcp", "127.0.0.1:8080", "c 10.1.0.1")
	must(t, s.Detach(t.Context(), box))
	place{}.expectNothing(t, "tcp", "127.0.0.1:8080")
}

// TestNetworksAfterACrash: what was acknowledged is there, what was not is not,
// whatever lies about.
func TestNetworksAfterACrash(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	dead, err := Open(t.Context(), c)
	must(t, err)
	must(t, dead.Restore(t.Context(), nil))
	keep := create(t, dead, wire.CreateRequest{Name: "keep", EnableIPv6: on()})
	lost := create(t, dead, wire.CreateRequest{Name: "lost"})
	gone := create(t, dead, wire.CreateRequest{Name: "gone"})
	one := attachTo(t, dead, "one", Want{Network: "keep"}, Want{Network: "bridge"})
	two := attachTo(t, dead, "two", Want{Network: "keep"})
	last := two.Endpoints[0].Address
	dead.saveCursors()
	must(t, dead.Detach(t.Context(), two.Sandbox))
	letGo(two.Attachment)
	// As a daemon leaves it that is killed between two steps of a removal, of a
	// creation, of a connection, and of writing a record.
	must(t, os.Remove(filepath.Join(c.Root, lost.ID+".json")))
	half := &lan{record: record{Network: wire.Network{Name: "half", ID: newID(), Driver: "bridge"}}}
	half.Bridge = "br-" + half.ID[:12]
	_, err = dead.raiser.bridgeOf(half).Raise()
	must(t, err)
	_, _, err = dead.Connect(t.Context(), one.Sandbox, one.NetNS, Want{Network: "gone"}, nil)
	must(t, err)
	must(t, link.LowerBridge(gone.Bridge))
	must(t, os.WriteFile(filepath.Join(c.Root, ".x.json.tmp123"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(c.Root, "broken.json"), []byte("{"), 0o600))
	dead.claim.release()

	s, err := Open(t.Context(), c)
	must(t, err)
	defer s.Close(context.Background())
	must(t, s.Restore(t.Context(), []Sandbox{one.Sandbox}))
	var names []string
	for _, n := range s.List() {
		names = append(names, n.Name)
	}
	if got := strings.Join(names, " "); got != "bridge host none keep gone" {
		t.Errorf("networks %s", got)
	}
	if !exists(keep.Bridge) || !exists(gone.Bridge) || exists(lost.Bridge) || exists(half.Bridge) {
		t.Error("bridges are not as the records say")
	}
	testutil.Eventually(t, 5*time.Second, "an interface is gone that nobody stored", func() bool { return one.links(t) == "lo eth0 eth1" })
	if n, err := s.Lookup("keep"); err != nil || n.ID != keep.ID || fmt.Sprint(n.IPAM) != fmt.Sprint(keep.IPAM) || !n.Created.Equal(keep.Created) {
		t.Errorf("%+v, %v", n, err)
	}
	next := attachTo(t, s, "next", Want{Network: "keep"})
	if e := next.Endpoints[0]; e.Address == last || e.Address == one.Endpoints[0].Address {
		t.Errorf("the address %s is taken again at once", e.Address)
	}
	next.serve(t, "tcp", 80, "next")
	one.expect(t, "tcp", next.Endpoints[0].Address.Addr().String()+":80", "next "+one.Endpoints[0].Address.Addr().String())
	if err := s.Remove(t.Context(), "keep"); !errors.Is(err, fault.Forbidden) {
		t.Errorf("a network in use: %v", err)
	}
	dead.stop()
	dead.watch.close()
	dead.tasks.Wait()
}

// TestBridgeOfABoot: the bridges are made again, with the containers that run
// put back on them.
func TestBridgesAreMadeAgain(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	first := open(t, c)
	n := create(t, first, wire.CreateRequest{Name: "n", EnableIPv6: on()})
	a, b := attachTo(t, first, "a", Want{Network: "n"}), attachTo(t, first, "b", Want{Network: "n"})
	must(t, first.Close(t.Context()))
	must(t, link.LowerBridge(n.Bridge))
	s, err := Open(t.Context(), c)
	must(t, err)
	defer s.Close(context.Background())
	must(t, s.Restore(t.Context(), []Sandbox{a.Sandbox, b.Sandbox}))
	b.serve(t, "tcp", 80, "b")
	a.expect(t, "tcp", b.Endpoints[0].Address.Addr().String()+":80", "b "+a.Endpoints[0].Address.Addr().String())
}

// TestTakenAddressIsAnnounced: neighbours that know an address under another
// MAC are told.
func TestTakenAddressIsAnnounced(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, stored(t))
	create(t, s, wire.CreateRequest{Name: "n", EnableIPv6: on(), IPAM: &wire.IPAM{Config: []wire.IPAMConfig{
		{Subnet: netip.MustParsePrefix("10.8.0.0/24")}, {Subnet: netip.MustParsePrefix("fd00:8::/64")}}}})
	peer := attachTo(t, s, "peer", Want{Network: "n"})
	for i := range 2 {
		a := attachTo(t, s, "a", Want{Network: "n", Address: addr("10.8.0.50"), Address6: addr("fd00:8::50"), MAC: fmt.Sprint("02:00:00:00:00:0", i+1)})
		a.serve(t, "tcp", 80, "a")
		a.serve6(t, 81, "a")
		peer.expect(t, "tcp", "10.8.0.50:80", "a "+peer.Endpoints[0].Address.Addr().String())
		peer.expect6(t, netip.MustParseAddrPort("[fd00:8::50]:81"), "a "+peer.Endpoints[0].Address6.Addr().String())
		must(t, s.Detach(t.Context(), a.Sandbox))
		letGo(a.Attachment)
		s.remover.clear()
	}
}

func TestDefaultBridgeAsAsked(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := Config{Bridge: "tt0", FixedCIDR: netip.MustParsePrefix("10.44.0.64/26"), BIP: netip.MustParsePrefix("10.44.0.1/24"), DefaultGateway: addr("10.44.0.2"),
		IPv6: true, BIP6: netip.MustParsePrefix("fd00:44::1/64"), FixedCIDR6: netip.MustParsePrefix("fd00:44::ff00/120"), NoICC: true, NoMasquerade: true,
		NetworkOptions: map[string]map[string]string{"bridge": {optionMTU: "1300"}}}
	s := open(t, c)
	a := attach(t, s, "a")
	if e := a.Endpoints[0]; e.Address.String() != "10.44.0.64/24" || e.Address6.String() != "fd00:44::ff00/64" || e.Gateway != addr("10.44.0.2") || e.Gateway6 != addr("fd00:44::1") {
		t.Errorf("%+v", e)
	}
	n, err := s.Inspect("bridge")
	must(t, err)
	if n.Options[optionICC] != "false" || n.Options[optionMasquerade] != "false" || !n.EnableIPv6 || len(n.IPAM.Config) != 2 || n.IPAM.Config[0].IPRange != c.FixedCIDR {
		t.Errorf("%+v", n.Network)
	}
	g := s.lans.segments()[0]
	if g.ICC || g.Masquerade || g.Address6 != c.BIP6 || fmt.Sprint(g.Routers) != "[10.44.0.2]" {
		t.Errorf("%+v", g)
	}
	made := create(t, s, wire.CreateRequest{Name: "n"})
	if made.Options[optionMTU] != "1300" || !made.EnableIPv6 || len(made.IPAM.Config) != 2 {
		t.Errorf("%+v", made)
	}
	must(t, s.Remove(t.Context(), "n"))
	must(t, s.Close(t.Context()))
	c.BIP, c.FixedCIDR, c.DefaultGateway = netip.MustParsePrefix("10.45.0.1/24"), netip.Prefix{}, netip.Addr{}
	changed := open(t, c)
	if changed.Gateway() != addr("10.45.0.1") {
		t.Errorf("gateway %s", changed.Gateway())
	}
}

func TestNetworksTellWhatHappens(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.Events = &event.Log{}
	s := open(t, c)
	create(t, s, wire.CreateRequest{Name: "n"})
	must(t, s.Remove(t.Context(), "n"))
	subscription := c.Events.Subscribe(time.Unix(1, 0), time.Now(), event.Filter{})
	defer subscription.Close()
	for _, want := range []string{"create n bridge", "destroy n bridge"} {
		m, err := subscription.Next(t.Context())
		must(t, err)
		if got := fmt.Sprint(m.Action, " ", m.Actor.Attributes["name"], " ", m.Actor.Attributes["type"]); got != want || m.Type != "network" {
			t.Errorf("told %s, want %s", got, want)
		}
	}
}

// TestDeletedBridgeComesBack: with the next container, and for those that run.
func TestDeletedBridgeComesBack(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.Spare = 1
	s := open(t, c)
	n := create(t, s, wire.CreateRequest{Name: "n"})
	for network, bridge := range map[string]string{"n": n.Bridge, "bridge": "tt0"} {
		a := attachTo(t, s, "a", Want{Network: network})
		a.serve(t, "tcp", 80, "a")
		must(t, link.LowerBridge(bridge))
		for range 2 {
			b := attachTo(t, s, "b", Want{Network: network})
			b.expect(t, "tcp", a.Endpoints[0].Address.Addr().String()+":80", "a "+b.Endpoints[0].Address.Addr().String())
		}
	}
}

func TestForeignBridgeOfANetwork(t *testing.T) {
	if !asHost(t) {
		return
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "theirs"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	s := open(t, stored(t))
	options := map[string]string{optionBridgeName: "theirs"}
	create(t, s, wire.CreateRequest{Name: "n", Options: options, IPAM: askedFor("10.5.0.0/24")})
	if p, err := link.AddressOf("theirs", unix.AF_INET); err != nil || p.String() != "10.5.0.1/24" {
		t.Errorf("%s %v", p, err)
	}
	must(t, s.Remove(t.Context(), "n"))
	if !exists("theirs") {
		t.Error("a bridge of somebody else's went with the network")
	}
	// Its address is a route of the host, and no hindrance.
	create(t, s, wire.CreateRequest{Name: "n", Options: options, IPAM: askedFor("10.5.0.0/24")})
}

func TestManyNetworksAtOnce(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.Spare = 1
	s := open(t, c)
	var workers sync.WaitGroup
	for i := range 8 {
		workers.Go(func() {
			name := fmt.Sprint("n", i%4) // two want each name
			for range 3 {
				_, err := s.Create(t.Context(), wire.CreateRequest{Name: name})
				if err != nil && !errors.Is(err, fault.Conflict) {
					t.Error(err)
				}
				a, err := s.Attach(t.Context(), Request{ContainerID: fmt.Sprint("0123456789ab", i), Name: fmt.Sprint("c", i), Wants: []Want{{Network: name}, {}}})
				if err == nil {
					if err := s.Remove(t.Context(), name); !errors.Is(err, fault.Forbidden) {
						t.Errorf("%s was removed with a container on it: %v", name, err)
					}
					letGo(a)
					err = s.Detach(t.Context(), a.Sandbox)
				}
				if err != nil && !errors.Is(err, fault.NotFound) {
					t.Error(err)
				}
				if err := s.Remove(t.Context(), name); err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Forbidden) {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	if _, err := s.Prune(t.Context(), func(wire.Network) bool { return true }); err != nil {
		t.Error(err)
	}
	if list := s.List(); len(list) != 3 {
		t.Errorf("left: %v", list)
	}
	must(t, s.Close(t.Context()))
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "br-") || s.host.Ours(l.Attrs().Name) {
			t.Errorf("left: %s", l.Attrs().Name)
		}
	}
}

// TestOptionsWithoutEffect: they are kept, and told of to who gave them.
func TestOptionsWithoutEffect(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, stored(t))
	out, err := s.Create(t.Context(), wire.CreateRequest{Name: "n", Options: map[string]string{"com.docker.network.bridge.colour": "red", "colour": "blue", optionBridgeName: ""}})
	must(t, err)
	if out.Warning != "options that the bridge driver does not know have no effect: com.docker.network.bridge.colour" {
		t.Errorf("the warning is %q", out.Warning)
	}
	n, err := s.Lookup("n")
	if err != nil || n.Options["com.docker.network.bridge.colour"] != "red" || n.Options["colour"] != "blue" {
		t.Errorf("%+v, %v", n.Options, err)
	}
}

// TestGatewayModes: what the bridge has, and where the containers' routes lead.
func TestGatewayModes(t *testing.T) {
	if !asHost(t) {
		return
	}
	s := open(t, stored(t))
	for _, c := range []struct {
		name          string
		internal      bool
		options       map[string]string
		aux           map[string]netip.Addr
		bridge, route string
	}{
		{"plain", false, nil, nil, "10.6.0.1/24", "eth0 10.6.0.1"},
		{"internal", true, nil, nil, "10.6.0.1/24", "none"},
		{"isolated", true, map[string]string{optionMode4: modeIsolated}, nil, "invalid Prefix", "none"},
		{"inhibited", false, map[string]string{optionInhibit4: "true"}, nil, "invalid Prefix", "eth0 10.6.0.1"},
		{"elsewhere", false, nil, map[string]netip.Addr{defaultGateway4: addr("10.6.0.99")}, "10.6.0.1/24", "eth0 10.6.0.99"},
		{"prefix", false, map[string]string{optionPrefix: "wan"}, nil, "10.6.0.1/24", "wan0 10.6.0.1"},
	} {
		n := create(t, s, wire.CreateRequest{Name: c.name, Internal: c.internal, Options: c.options,
			IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.6.0.0/24"), AuxAddress: c.aux}}}})
		a := attachTo(t, s, c.name, Want{Network: c.name})
		if p, err := link.AddressOf(n.Bridge, unix.AF_INET); err != nil || p.String() != c.bridge {
			t.Errorf("%s: the bridge has %s, %v", c.name, p, err)
		}
		if got := a.routes(t, unix.AF_INET); got != c.route {
			t.Errorf("%s: the default route is %s, want %s", c.name, got, c.route)
		}
		must(t, s.Detach(t.Context(), a.Sandbox))
		letGo(a.Attachment)
		must(t, s.Remove(t.Context(), c.name))
	}
}

// TestWaitingAddresses: those of namespaces that wait are not in use, are there
// for who asks for them, and are where the next daemon goes on.
func TestWaitingAddresses(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.Spare = 2
	s, err := Open(t.Context(), c)
	must(t, err)
	must(t, s.Restore(t.Context(), nil))
	waiting := func(n int) {
		t.Helper()
		testutil.Eventually(t, 5*time.Second, "namespaces wait", func() bool {
			s.sandboxes.mu.Lock()
			defer s.sandboxes.mu.Unlock()
			return len(s.sandboxes.waiting) == n
		})
	}
	waiting(2)
	n, err := s.Inspect("bridge")
	must(t, err)
	if u := n.Status.IPAM.Subnets[n.IPAM.Config[0].Subnet]; u.IPsInUse != 3 || u.DynamicIPsAvailable != 253 || len(n.Containers) != 0 {
		t.Errorf("%+v", u)
	}
	if e, err := s.Exposure(); err != nil || len(e) != 0 {
		t.Errorf("reached without a container: %+v", e)
	}
	if a := attach(t, s, "a"); a.Endpoints[0].Address.String() != "172.30.1.2/24" {
		t.Errorf("the first container has %s", a.Endpoints[0].Address)
	}
	waiting(2)
	chosen := attachTo(t, s, "chosen", Want{Address: addr("172.30.1.3")})
	if chosen.Endpoints[0].Address.Addr() != addr("172.30.1.3") {
		t.Errorf("%+v", chosen.Endpoints)
	}
	waiting(2)
	next := s.sandboxes.unused()[0].Endpoints[0].Address
	if !addr("172.30.1.3").Less(next.Addr()) {
		t.Errorf("%s waits, which a container has", next)
	}
	must(t, s.Close(t.Context()))
	again, err := Open(t.Context(), c)
	must(t, err)
	defer again.Close(context.Background())
	must(t, again.Restore(t.Context(), nil))
	if b := attach(t, again, "b"); b.Endpoints[0].Address != next {
		t.Errorf("the next daemon goes on with %s, want %s", b.Endpoints[0].Address, next)
	}
}

func TestSpareOfANetwork(t *testing.T) {
	if !asHost(t) {
		return
	}
	c := stored(t)
	c.Spare = 1
	s := open(t, c)
	for i := range poolsOfUsers + 2 {
		name := fmt.Sprint("n", i)
		create(t, s, wire.CreateRequest{Name: name})
		attachTo(t, s, name, Want{Network: name})
	}
	pools := 0
	for _, l := range s.lans.all() {
		if l.pool != nil && l.Name != networkBridge {
			pools++
		}
	}
	if pools != poolsOfUsers || len(s.pools.recent) != poolsOfUsers {
		t.Errorf("%d pools", pools)
	}
	l := s.lans.byName[fmt.Sprint("n", poolsOfUsers+1)]
	var spare *box
	testutil.Eventually(t, 5*time.Second, "a namespace waits", func() bool { spare = s.pools.take(l); return spare != nil })
	s.fitter.abandon(spare, nil)
}

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0
}
