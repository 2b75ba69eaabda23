package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plugin"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/macvlan"
	"github.com/tarehq/tare/network/remote"
	"github.com/tarehq/tare/network/remote/remotetest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// engine is a service with all drivers that can start anew.
type engine struct {
	*network.Service
	t      *testing.T
	config network.Config
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	e := &engine{t: t, config: network.Config{
		Root: t.TempDir(), Bridge: "td0", BIP: netip.MustParsePrefix("172.31.0.1/24"),
		Drivers: map[string]network.Driver{"macvlan": macvlan.New(macvlan.Macvlan), "ipvlan": macvlan.New(macvlan.IPvlan)},
	}}
	return e
}

func (e *engine) start(sandboxes ...network.Sandbox) {
	e.t.Helper()
	s, err := network.Open(e.t.Context(), e.config)
	must(e.t, err)
	must(e.t, s.Restore(e.t.Context(), sandboxes))
	e.Service = s
}

func (e *engine) stop() {
	e.t.Helper()
	must(e.t, e.Close(context.Background()))
}

func (e *engine) create(name, driver string, r wire.CreateRequest) {
	e.t.Helper()
	r.Name, r.Driver = name, driver
	_, err := e.Create(e.t.Context(), r)
	must(e.t, err)
}

// attach gives a sandbox and its namespace, which lasts until the test ends.
func (e *engine) attach(r network.Request) (network.Sandbox, *os.File) {
	e.t.Helper()
	r.ContainerID, r.Name = strings.Repeat("c", 64), "web"
	a, err := e.Attach(e.t.Context(), r)
	must(e.t, err)
	e.t.Cleanup(func() {
		a.NetNS.Close()
		for _, s := range a.Sockets {
			s.Close()
		}
	})
	return a.Sandbox, a.NetNS
}

// plugged has a small plugin listen that the engine finds as "small".
func (e *engine) plugged() *remotetest.Plugin {
	e.t.Helper()
	p := remotetest.New()
	dir, err := os.MkdirTemp("", "drivers")
	must(e.t, err)
	e.t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "small.sock"))
	must(e.t, err)
	server := &http.Server{Handler: p}
	go server.Serve(l)
	e.t.Cleanup(func() { server.Close() })
	plugins := remote.New(plugin.New(plugin.Dirs{Sockets: dir}))
	e.config.Plugin, e.config.IPAM = plugins.Network, plugins.Addresses
	return p
}

func reach(t *testing.T, from *os.File, address string) {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	must(t, err)
	defer l.Close()
	testutil.InNetNS(t, from, func() error {
		c, err := net.Dial("tcp4", address)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// A plugin's network with a plugin's addresses: all its steps, ports and a restart
// of the daemon amid them.
func TestPluginsCarryANetwork(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	e := newEngine(t)
	p := e.plugged()
	e.start()
	e.create("mine", "small", wire.CreateRequest{IPAM: &wire.IPAM{Driver: "small"}, Options: map[string]string{"color": "red"}})
	n, err := e.Lookup("mine")
	must(t, err)
	if c := n.IPAM.Config; len(c) != 1 || c[0].Subnet.String() != "10.66.0.0/24" || c[0].Gateway.String() != "10.66.0.1" {
		t.Errorf("addresses: %+v", c)
	}
	sandbox, ns := e.attach(network.Request{Wants: []network.Want{{Network: "mine"}}, Ports: []network.Port{{ContainerPort: 80, HostPort: 8080, Proto: "tcp"}}})
	if at := sandbox.Endpoints[0]; at.Interface != "net0" || at.Address.String() != "10.66.0.2/24" || at.Gateway.String() != "10.66.0.1" || len(at.MAC) != 17 || !at.Exposed {
		t.Errorf("endpoint: %+v", at)
	}
	if body := p.Body("NetworkDriver.ProgramExternalConnectivity"); !strings.Contains(body, `"HostPort":8080`) {
		t.Errorf("ports were told as %s", body)
	}
	reach(t, ns, "10.66.0.1:80")
	e.stop()
	e.start(sandbox)
	must(t, e.Detach(t.Context(), sandbox))
	must(t, e.Remove(t.Context(), "mine"))
	e.stop()
	want := []string{"RequestPool", "RequestAddress", "CreateNetwork", "RequestAddress", "CreateEndpoint", "Join", "EndpointOperInfo", "ProgramExternalConnectivity",
		"RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "ReleaseAddress", "DeleteNetwork", "ReleaseAddress", "ReleasePool"}
	if calls := p.Calls(); !slices.Equal(sorted(calls), sorted(want)) || p.Left() != "" {
		t.Errorf("called %q\nwant %q\nleft %s", calls, want, p.Left())
	}
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// What a plugin refuses leaves nothing, with it or here.
func TestPluginsRefuse(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	e := newEngine(t)
	p := e.plugged()
	e.start()
	defer e.stop()
	p.Refuse["NetworkDriver.CreateNetwork"] = "no room"
	_, err := e.Create(t.Context(), wire.CreateRequest{Name: "mine", Driver: "small", IPAM: &wire.IPAM{Driver: "small"}})
	if err == nil || !strings.Contains(err.Error(), "remote: no room") {
		t.Errorf("create: %v", err)
	}
	if _, err := e.Lookup("mine"); !errors.Is(err, fault.NotFound) || p.Left() != "" {
		t.Errorf("left: %v, %s", err, p.Left())
	}
	for _, r := range []wire.CreateRequest{{Name: "x", Driver: "absent"}, {Name: "x", Driver: "bridge", IPAM: &wire.IPAM{Driver: "absent"}}} {
		if _, err := e.Create(t.Context(), r); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), `plugin "absent" not found`) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	delete(p.Refuse, "NetworkDriver.CreateNetwork")
	e.create("mine", "small", wire.CreateRequest{IPAM: &wire.IPAM{Driver: "small"}})
	p.Refuse["NetworkDriver.ProgramExternalConnectivity"] = "no way out"
	_, err = e.Attach(t.Context(), network.Request{ContainerID: strings.Repeat("c", 64), Name: "web", Wants: []network.Want{{Network: "mine"}}})
	if err == nil || !strings.Contains(err.Error(), "no way out") {
		t.Errorf("attach: %v", err)
	}
	must(t, e.Remove(t.Context(), "mine"))
	if left := p.Left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// A container on a bridge gets a macvlan interface beside it while it runs, and
// gives it back.
func TestMacvlanBesideABridge(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	e := newEngine(t)
	e.start()
	defer e.stop()
	router := testutil.NewNetNS(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(router.Fd())}))
	up, err := netlink.LinkByName("up0")
	must(t, err)
	must(t, netlink.LinkSetUp(up))
	var service net.Listener
	testutil.InNetNS(t, router, func() error {
		link, err := netlink.LinkByName("eth0")
		must(t, err)
		must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 77, 0, 1), Mask: net.CIDRMask(24, 32)}}))
		must(t, netlink.LinkSetUp(link))
		service, err = net.Listen("tcp4", "10.77.0.1:80")
		return err
	})
	defer service.Close()
	e.create("lan", "macvlan", wire.CreateRequest{Options: map[string]string{"parent": "up0"},
		IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: netip.MustParsePrefix("10.77.0.0/24")}}}})
	sandbox, ns := e.attach(network.Request{Wants: []network.Want{{}}})
	after, sockets, err := e.Connect(t.Context(), sandbox, ns, network.Want{Network: "lan", MAC: "02:00:00:00:00:77", GwPriority: 1}, nil)
	must(t, err)
	if len(sockets) != 0 || after.Gateway4() == nil || after.Gateway4().NetworkName != "lan" {
		t.Errorf("connected: %+v", after)
	}
	testutil.InNetNS(t, ns, func() error {
		link, err := netlink.LinkByName("eth1")
		must(t, err)
		if mac := link.Attrs().HardwareAddr.String(); link.Type() != "macvlan" || mac != "02:00:00:00:00:77" {
			t.Errorf("%s with %s", link.Type(), mac)
		}
		c, err := net.Dial("tcp4", "10.77.0.1:80")
		if err == nil {
			c.Close()
		}
		return err
	})
	if _, err := e.SetRate(t.Context(), after, after.On(after.Gateway4().NetworkID).ID, network.Rate{In: 1e6}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "only bridge networks can") {
		t.Errorf("a rate: %v", err)
	}
	after, _, err = e.Disconnect(t.Context(), after, ns, after.Gateway4().ID, nil)
	must(t, err)
	testutil.InNetNS(t, ns, func() error {
		if _, err := netlink.LinkByName("eth1"); err == nil {
			t.Error("the interface is left")
		}
		return nil
	})
	must(t, e.Detach(t.Context(), after))
	must(t, e.Remove(t.Context(), "lan"))
}

// An interface's rates are there from its first packet on, change while its
// container runs, are put back after a crash, and go.
func TestRatesOfPlaces(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	e := newEngine(t)
	e.start()
	sandbox, _ := e.attach(network.Request{Wants: []network.Want{{Rate: network.Rate{In: 8e6, Out: 4e6}}}})
	host := sandbox.Endpoints[0].HostInterface
	want := func(when, in, out string) {
		t.Helper()
		if a, b := queue(t, host), queue(t, "ti"+host[2:]); a != in || b != out {
			t.Errorf("%s: %q and %q, not %q and %q", when, a, b, in, out)
		}
	}
	want("attached", "tbf 8000000", "tbf 4000000")
	sandbox, err := e.SetRate(t.Context(), sandbox, sandbox.Endpoints[0].ID, network.Rate{In: 2e6, Out: 1e6})
	must(t, err)
	want("changed", "tbf 2000000", "tbf 1000000")
	e.stop()
	aside, err := netlink.LinkByName("ti" + host[2:])
	must(t, err)
	must(t, netlink.LinkDel(aside))
	e.start(sandbox)
	want("started anew", "tbf 2000000", "tbf 1000000")
	must(t, e.Detach(t.Context(), sandbox))
	e.stop()
	want("detached", "gone", "gone")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "ti" + host[2:]
	must(t, netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}))
	e.start()
	want("what a crash left", "gone", "gone")
	e.stop()
}

func queue(t *testing.T, name string) string {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		return "gone"
	}
	list, err := netlink.QdiscList(link)
	must(t, err)
	for _, q := range list {
		if tbf, ok := q.(*netlink.Tbf); ok {
			return fmt.Sprint("tbf ", tbf.Rate*8)
		}
	}
	return ""
}
