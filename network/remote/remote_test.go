package remote

import (
	"encoding/json"
	"errors"
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
	"github.com/tarehq/tare/network/remote/remotetest"
)

var (
	_ network.Driver    = (*Driver)(nil)
	_ network.Restorer  = (*Driver)(nil)
	_ network.Gate      = (*Driver)(nil)
	_ network.Addresses = (*Allocator)(nil)
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listen has the plugin listen under the name "small".
func listen(t *testing.T, p http.Handler) *Plugins {
	t.Helper()
	dir, err := os.MkdirTemp("", "remote")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "small.sock"))
	must(t, err)
	s := &http.Server{Handler: p}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return New(plugin.New(plugin.Dirs{Sockets: dir}))
}

func newNetwork() wire.Network {
	return wire.Network{
		ID: strings.Repeat("ab", 32), Driver: "small", EnableIPv4: true, Scope: "local", Options: map[string]string{"color": "red"},
		IPAM: wire.IPAM{Config: []wire.IPAMConfig{{
			Subnet: netip.MustParsePrefix("10.66.9.0/24"), Gateway: netip.MustParseAddr("10.66.9.1"),
			AuxAddress: map[string]netip.Addr{"router": netip.MustParseAddr("10.66.9.9")},
		}}},
	}
}

func newEndpoint() network.Endpoint {
	return network.Endpoint{ID: strings.Repeat("cd", 32), Address: netip.MustParsePrefix("10.66.9.2/24"), Options: map[string]string{"speed": "fast"}}
}

// The plugin's interface pair is moved to a container, which reaches the plugin's
// bridge, and all is taken back.
func TestNetworkOfAPlugin(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	p := remotetest.New()
	d, err := listen(t, p).Network(t.Context(), "small")
	must(t, err)
	n, e, ns := newNetwork(), newEndpoint(), testutil.NewNetNS(t)
	must(t, d.Check(t.Context(), &n))
	must(t, d.Create(t.Context(), n))
	link, err := d.Join(t.Context(), n, &e, ns)
	must(t, err)
	if link.Inside || link.Prefix != "net" || e.Gateway.String() != "10.66.9.1" || len(link.Routes) != 1 || link.Routes[0].Destination.String() != "192.0.2.0/24" {
		t.Errorf("joined: %+v, %+v", link, e)
	}
	moved, err := netlink.LinkByName(link.Name)
	must(t, err)
	must(t, netlink.LinkSetNsFd(moved, int(ns.Fd())))
	testutil.InNetNS(t, ns, func() error {
		inner, err := netlink.LinkByName(link.Name)
		must(t, err)
		a, err := netlink.ParseAddr(e.Address.String())
		must(t, err)
		return errors.Join(netlink.AddrAdd(inner, a), netlink.LinkSetUp(inner))
	})
	l, err := net.Listen("tcp4", "10.66.9.1:80")
	must(t, err)
	defer l.Close()
	testutil.InNetNS(t, ns, func() error {
		c, err := net.Dial("tcp4", "10.66.9.1:80")
		if err == nil {
			c.Close()
		}
		return err
	})
	must(t, d.(network.Gate).Expose(t.Context(), n, e, []network.Port{{ContainerPort: 80, HostPort: 8080, Proto: "tcp"}}))
	must(t, d.(network.Gate).Conceal(t.Context(), n, e))
	must(t, d.Leave(t.Context(), n, e))
	must(t, d.(network.Restorer).Restore(t.Context(), n))
	must(t, d.Remove(t.Context(), n))
	want := []string{"CreateNetwork", "CreateEndpoint", "Join", "EndpointOperInfo", "ProgramExternalConnectivity", "RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "DeleteNetwork"}
	if calls := p.Calls(); !slices.Equal(calls, want) || p.Left() != "" {
		t.Errorf("called: %q, left: %s", calls, p.Left())
	}
	for method, want := range map[string]string{
		"CreateNetwork": `{"NetworkID":"` + n.ID + `","IPv4Data":[{"AddressSpace":"LocalDefault","AuxAddresses":{"router":"10.66.9.9/24"},"Gateway":"10.66.9.1/24","Pool":"10.66.9.0/24"}],"IPv6Data":[],
			"Options":{"com.docker.network.enable_ipv4":true,"com.docker.network.enable_ipv6":false,"com.docker.network.generic":{"color":"red"}}}`,
		"CreateEndpoint": `{"NetworkID":"` + n.ID + `","EndpointID":"` + e.ID + `","Interface":{"Address":"10.66.9.2/24","AddressIPv6":"","MacAddress":""},"Options":{"speed":"fast"}}`,
		"ProgramExternalConnectivity": `{"NetworkID":"` + n.ID + `","EndpointID":"` + e.ID + `","Options":{"speed":"fast","com.docker.network.endpoint.exposedports":[{"Port":80,"Proto":6}],
			"com.docker.network.portmap":[{"HostIP":"","HostPort":8080,"HostPortEnd":8080,"IP":"","Port":80,"Proto":6}]}}`,
	} {
		if got := p.Body("NetworkDriver." + method); canonical(t, got) != canonical(t, want) {
			t.Errorf("%s was sent\n%s\nnot\n%s", method, got, want)
		}
	}
	if sandbox := p.Body("NetworkDriver.Join"); !strings.Contains(sandbox, `"SandboxKey":"/proc/`) {
		t.Errorf("Join was sent %s", sandbox)
	}
}

func canonical(t *testing.T, text string) string {
	t.Helper()
	var v any
	must(t, json.Unmarshal([]byte(text), &v))
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

// What a plugin refuses or answers wrongly leaves nothing with it.
func TestFailuresAreTakenBack(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	for _, c := range []struct{ method, answer, want, calls string }{
		{"CreateEndpoint", `{"Err":"full"}`, "remote: full", "CreateEndpoint"},
		{"CreateEndpoint", `{"Interface":{"Address":"10.9.9.9/24"}}`, "driver modified interface address", "CreateEndpoint DeleteEndpoint"},
		{"CreateEndpoint", `{"Interface":{"MacAddress":"x"}}`, "invalid MAC address", "CreateEndpoint DeleteEndpoint"},
		{"CreateEndpoint", `{"Interface":{"AddressIPv6":"10.0.0.1/8"}}`, "invalid IPv6 address", "CreateEndpoint DeleteEndpoint"},
		{"Join", `{"Err":"no"}`, "remote: no", "CreateEndpoint Join DeleteEndpoint"},
		{"Join", `{"Gateway":"there"}`, `invalid gateway "there"`, "CreateEndpoint Join Leave DeleteEndpoint"},
		{"Join", `{"InterfaceName":{"SrcName":"much-too-long-a-name"}}`, "invalid interface name", "CreateEndpoint Join Leave DeleteEndpoint"},
		{"Join", `{"StaticRoutes":[{"Destination":"10.0.0.0/8","RouteType":0,"NextHop":""}]}`, "invalid next hop", "CreateEndpoint Join Leave DeleteEndpoint"},
		{"Join", `[]`, "not the protocol's JSON", "CreateEndpoint Join DeleteEndpoint"},
	} {
		p := remotetest.New()
		d, err := listen(t, answering{p, "/NetworkDriver." + c.method, c.answer}).Network(t.Context(), "small")
		must(t, err)
		n, e := newNetwork(), newEndpoint()
		must(t, d.Create(t.Context(), n))
		if _, err := d.Join(t.Context(), n, &e, testutil.NewNetNS(t)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v", c.method, c.answer, err)
		}
		if calls := strings.Join(p.Calls()[1:], " "); calls != c.calls {
			t.Errorf("%s %s: called %s", c.method, c.answer, calls)
		}
		must(t, d.Remove(t.Context(), n))
	}
}

// answering gives one answer wrongly, after the plugin has done what was asked.
type answering struct {
	*remotetest.Plugin
	path, answer string
}

func (a answering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != a.path {
		a.Plugin.ServeHTTP(w, r)
		return
	}
	a.Plugin.ServeHTTP(discard{}, r)
	_, _ = w.Write([]byte(a.answer))
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// What the plugin chooses when nobody has is entered.
func TestAPluginChooses(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	chosen := `{"Interface":{"Address":"10.66.9.7/24","AddressIPv6":"fd00::7/64","MacAddress":"02:00:00:00:00:07"}}`
	d, err := listen(t, answering{remotetest.New(), "/NetworkDriver.CreateEndpoint", chosen}).Network(t.Context(), "small")
	must(t, err)
	n, e := newNetwork(), network.Endpoint{ID: strings.Repeat("ef", 32)}
	must(t, d.Create(t.Context(), n))
	_, err = d.Join(t.Context(), n, &e, testutil.NewNetNS(t))
	must(t, err)
	if e.Address.String() != "10.66.9.7/24" || e.Address6.String() != "fd00::7/64" || e.MAC != "02:00:00:00:00:07" {
		t.Errorf("chosen: %+v", e)
	}
}

func TestGlobalScope(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	p := remotetest.New()
	p.Scope = "global"
	d, err := listen(t, p).Network(t.Context(), "small")
	must(t, err)
	n := newNetwork()
	must(t, d.Check(t.Context(), &n))
	if n.Scope != "global" {
		t.Errorf("scope %q", n.Scope)
	}
	must(t, d.Create(t.Context(), n))
	must(t, d.Remove(t.Context(), n))
	want := []string{"AllocateNetwork", "CreateNetwork", "DeleteNetwork", "FreeNetwork"}
	if calls := p.Calls(); !slices.Equal(calls, want) {
		t.Errorf("called %q", calls)
	}
	p.Scope = "planet"
	if _, err := listen(t, p).Network(t.Context(), "small"); err == nil || !strings.Contains(err.Error(), "expecting 'local' or 'global', got planet") {
		t.Errorf("scope planet: %v", err)
	}
}

func TestUnknownDrivers(t *testing.T) {
	plugins := listen(t, remotetest.New())
	if _, err := plugins.Network(t.Context(), "absent"); !errors.Is(err, fault.NotFound) || err.Error() != `plugin "absent" not found` {
		t.Errorf("network: %v", err)
	}
	if _, err := plugins.Addresses(t.Context(), "absent"); !errors.Is(err, fault.NotFound) {
		t.Errorf("addresses: %v", err)
	}
}

func TestAddressesOfAPlugin(t *testing.T) {
	p := remotetest.New()
	a, err := listen(t, p).Addresses(t.Context(), "small")
	must(t, err)
	ctx := t.Context()
	pool, err := a.TakePool(ctx, network.PoolWant{Avoid: []netip.Prefix{netip.MustParsePrefix("10.66.0.0/23")}})
	must(t, err)
	if pool.Subnet.String() != "10.66.2.0/24" {
		t.Errorf("pool %s overlaps what was to be avoided", pool.Subnet)
	}
	if !strings.Contains(p.Body("IpamDriver.RequestPool"), `"AddressSpace":"here"`) {
		t.Errorf("a pool was asked for by %s", p.Body("IpamDriver.RequestPool"))
	}
	gateway, err := a.Take(ctx, pool.ID, netip.Addr{}, network.ForGateway, "")
	must(t, err)
	if !strings.Contains(p.Body("IpamDriver.RequestAddress"), `"RequestAddressType":"com.docker.network.gateway"`) {
		t.Errorf("a gateway was asked for by %s", p.Body("IpamDriver.RequestAddress"))
	}
	wanted := netip.MustParseAddr("10.66.2.77")
	got, err := a.Take(ctx, pool.ID, wanted, network.ForEndpoint, "02:00:00:00:00:01")
	must(t, err)
	if got.String() != "10.66.2.77/24" || gateway.String() != "10.66.2.1/24" {
		t.Errorf("got %s and %s", got, gateway)
	}
	if _, err := a.Take(ctx, pool.ID, wanted, network.ForEndpoint, ""); err == nil || err.Error() != "remote: address 10.66.2.77 is in use" {
		t.Errorf("one that is taken: %v", err)
	}
	must(t, a.Drop(ctx, pool.ID, wanted))
	must(t, a.Drop(ctx, pool.ID, gateway.Addr()))
	must(t, a.DropPool(ctx, pool.ID))
	if left := p.Left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestWrongPools(t *testing.T) {
	for answer, want := range map[string]string{
		`{"PoolID":"x","Pool":"nonsense"}`:                                                     "answers RequestPool wrongly",
		`{"PoolID":"x","Pool":"fd00::/64"}`:                                                    "other family",
		`{"PoolID":"x","Pool":"10.0.0.0/24"}`:                                                  "only subnets that overlap",
		`{"PoolID":"x","Pool":"10.1.0.0/24","Data":{"com.docker.network.gateway":"10.1.0.1"}}`: "answers RequestPool wrongly",
	} {
		p := remotetest.New()
		a, err := listen(t, answering{p, "/IpamDriver.RequestPool", answer}).Addresses(t.Context(), "small")
		must(t, err)
		_, err = a.TakePool(t.Context(), network.PoolWant{Avoid: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", answer, err)
		}
		calls := p.Calls()
		if calls[len(calls)-1] != "ReleasePool" {
			t.Errorf("%s: called %q", answer, calls)
		}
	}
}
