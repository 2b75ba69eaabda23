package macvlan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/network"
)

var _ network.Driver = (*Driver)(nil)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// give sets an interface up with an address in the caller's namespace.
func give(name, address string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
}

// uplink gives the host an interface whose other end is the router's, 10.77.0.1.
func uplink(t *testing.T, name string) (router *os.File) {
	t.Helper()
	router = testutil.NewNetNS(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(router.Fd())}))
	link, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetUp(link))
	testutil.InNetNS(t, router, func() error { return give("eth0", "10.77.0.1/24") })
	return router
}

func create(t *testing.T, d *Driver, n wire.Network) wire.Network {
	t.Helper()
	must(t, d.Check(t.Context(), &n))
	must(t, d.Create(t.Context(), n))
	return n
}

func newNetwork(id int, options ...string) wire.Network {
	n := wire.Network{ID: fmt.Sprintf("%064x", id), Options: map[string]string{}}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		n.Options[key] = value
	}
	return n
}

// join makes a container's namespace with a place on the network.
func join(t *testing.T, d *Driver, n wire.Network, address string) (ns *os.File, err error) {
	t.Helper()
	ns = testutil.NewNetNS(t)
	e := network.Endpoint{Address: netip.MustParsePrefix(address), Gateway: netip.MustParseAddr("10.77.0.1")}
	link, err := d.Join(t.Context(), n, &e, ns)
	if err != nil {
		return nil, err
	}
	if !link.Inside {
		t.Fatal("the interface was made on the host")
	}
	testutil.InNetNS(t, ns, func() error { return give(link.Name, address) })
	return ns, nil
}

func mustJoin(t *testing.T, d *Driver, n wire.Network, address string) *os.File {
	t.Helper()
	ns, err := join(t, d, n, address)
	must(t, err)
	return ns
}

// reaches tells whether a connection can be made between two namespaces.
func reaches(t *testing.T, from, to *os.File, address string) bool {
	t.Helper()
	var l net.Listener
	testutil.InNetNS(t, to, func() (err error) {
		l, err = net.Listen("tcp4", address+":80")
		return err
	})
	defer l.Close()
	return testutil.TryInNetNS(from, func() error {
		c, err := net.DialTimeout("tcp4", address+":80", 300*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	}) == nil
}

// mustReach waits until a connection can be made: an interface that was just set up
// drops what is sent before the kernel has looked at its carrier, and who asked
// for a neighbour then asks again after a second.
func mustReach(t *testing.T, from, to *os.File, address string) {
	t.Helper()
	testutil.Eventually(t, 10*time.Second, address+" is reached", func() bool { return reaches(t, from, to, address) })
}

func exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

func TestModes(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	for i, c := range []struct {
		mode     string
		siblings bool
	}{{"bridge", true}, {"private", false}, {"vepa", false}} {
		t.Run(c.mode, func(t *testing.T) {
			d, parent := New(Macvlan), fmt.Sprint("up", i)
			router := uplink(t, parent)
			n := create(t, d, newNetwork(i, "parent="+parent, "macvlan_mode="+c.mode))
			a, b := mustJoin(t, d, n, "10.77.0.2/24"), mustJoin(t, d, n, "10.77.0.3/24")
			mustReach(t, a, router, "10.77.0.1")
			mustReach(t, router, b, "10.77.0.3")
			if c.siblings {
				mustReach(t, a, b, "10.77.0.3")
			} else if reaches(t, a, b, "10.77.0.3") {
				t.Error("containers reach each other")
			}
			must(t, d.Remove(t.Context(), n))
			if !exists(parent) {
				t.Error("the host's own interface went with the network")
			}
		})
	}
}

func TestPassthruIsForOne(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	d := New(Macvlan)
	router := uplink(t, "up0")
	n := create(t, d, newNetwork(1, "parent=up0", "macvlan_mode=passthru"))
	a := mustJoin(t, d, n, "10.77.0.2/24")
	mustReach(t, a, router, "10.77.0.1")
	if _, err := join(t, d, n, "10.77.0.3/24"); !errors.Is(err, fault.Conflict) {
		t.Errorf("a second container: %v", err)
	}
	for _, mode := range []string{"bridge", "passthru"} {
		other := newNetwork(2, "parent=up0", "macvlan_mode="+mode)
		if err := d.Check(t.Context(), &other); !errors.Is(err, fault.Forbidden) {
			t.Errorf("a second network in mode %s: %v", mode, err)
		}
	}
}

// Without a parent containers reach each other alone, and the one that was made
// goes with the network, also by a driver of a later run.
func TestWithoutParent(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	d := New(Macvlan)
	n := create(t, d, newNetwork(0xabc))
	parent := "dm-" + n.ID[:12]
	if !exists(parent) {
		t.Fatal("no parent was made")
	}
	a, b := mustJoin(t, d, n, "10.77.0.2/24"), mustJoin(t, d, n, "10.77.0.3/24")
	mustReach(t, a, b, "10.77.0.3")
	e := network.Endpoint{Address: netip.MustParsePrefix("10.77.0.4/24"), Gateway: netip.MustParseAddr("10.77.0.1")}
	_, err := d.Join(t.Context(), n, &e, testutil.NewNetNS(t))
	must(t, err)
	if e.Gateway.IsValid() {
		t.Error("a gateway where no way leads out")
	}
	later := New(Macvlan)
	must(t, later.Create(t.Context(), n))
	must(t, later.Remove(t.Context(), n))
	if exists(parent) {
		t.Error("the parent is left")
	}
	must(t, later.Remove(t.Context(), n))
}

// VLANs are made, shared, found again by a later run and removed by the last
// network; those of others stay.
func TestVLANs(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	uplink(t, "up0")
	d := New(Macvlan)
	first := newNetwork(1, "parent=up0.10")
	if !known("vlan") {
		if err := d.Check(t.Context(), &first); !errors.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "CONFIG_VLAN_8021Q") {
			t.Errorf("without VLANs in the kernel: %v", err)
		}
		t.Skip("the kernel has no VLAN interfaces")
	}
	create(t, d, first)
	second := create(t, d, newNetwork(2, "parent=up0.10", "macvlan_mode=private"))
	mustJoin(t, d, first, "10.77.0.2/24")
	must(t, d.Remove(t.Context(), first))
	if !exists("up0.10") {
		t.Fatal("a VLAN went while a network uses it")
	}
	later := New(Macvlan)
	must(t, later.Create(t.Context(), second))
	must(t, later.Remove(t.Context(), second))
	if exists("up0.10") {
		t.Error("the VLAN is left")
	}
	up, err := netlink.LinkByName("up0")
	must(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "up0.11", up.Attrs().Index
	must(t, netlink.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 11, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}))
	n := create(t, d, newNetwork(3, "parent=up0.11"))
	must(t, d.Remove(t.Context(), n))
	if !exists("up0.11") {
		t.Error("a VLAN that was there before went with the network")
	}
}

func TestIPvlan(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	router := uplink(t, "up0")
	d := New(IPvlan)
	n := newNetwork(1, "parent=up0")
	if !known("ipvlan") {
		if err := d.Check(t.Context(), &n); !errors.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "CONFIG_IPVLAN") {
			t.Errorf("without ipvlan in the kernel: %v", err)
		}
		t.Skip("the kernel has no ipvlan")
	}
	create(t, d, n)
	a, b := mustJoin(t, d, n, "10.77.0.2/24"), mustJoin(t, d, n, "10.77.0.3/24")
	mustReach(t, a, b, "10.77.0.3")
	mustReach(t, a, router, "10.77.0.1")
	must(t, d.Remove(t.Context(), n))
	uplink(t, "up1")
	n = create(t, d, newNetwork(2, "parent=up1", "ipvlan_mode=l3"))
	e := network.Endpoint{Address: netip.MustParsePrefix("10.77.0.4/24"), Gateway: netip.MustParseAddr("10.77.0.1")}
	link, err := d.Join(t.Context(), n, &e, testutil.NewNetNS(t))
	must(t, err)
	if e.Gateway.IsValid() || len(link.Routes) != 1 || link.Routes[0].Destination.String() != "0.0.0.0/0" {
		t.Errorf("in mode l3: %+v, %+v", e, link)
	}
}

func TestRefused(t *testing.T) {
	if !testutil.AsHost(t) {
		return
	}
	uplink(t, "up0")
	for _, c := range []struct{ kind, options, want string }{
		{Macvlan, "macvlan_mode=ring", "requested macvlan mode 'ring' is not valid, 'bridge' mode is the macvlan driver default"},
		{IPvlan, "ipvlan_mode=l4", "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default"},
		{IPvlan, "ipvlan_flag=red", "requested ipvlan flag 'red' is not valid, 'bridge' is the ipvlan driver default"},
		{Macvlan, "parent=lo", "loopback interface is not a valid macvlan parent link"},
		{Macvlan, "parent=absent0", "invalid subinterface vlan name absent0, example formatting is eth0.10"},
		{Macvlan, "parent=absent0.7", "-o parent interface was not found on the host: absent0"},
		{Macvlan, "parent=up0.x", "invalid parent interface up0.x"},
		{Macvlan, "parent=up0.0", "vlan id must be between 1-4094, received: 0"},
		{Macvlan, "parent=up0.4095", "vlan id must be between 1-4094, received: 4095"},
	} {
		n := newNetwork(1, strings.Fields(c.options)...)
		if err := New(c.kind).Check(t.Context(), &n); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v", c.options, err)
		}
	}
	bridge := netlink.NewLinkAttrs()
	bridge.Name = "br0"
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: bridge}))
	br, err := netlink.LinkByName("br0")
	must(t, err)
	up, err := netlink.LinkByName("up0")
	must(t, err)
	must(t, netlink.LinkSetMaster(up, br))
	d := New(Macvlan)
	n := create(t, d, newNetwork(1, "parent=up0"))
	if _, err := join(t, d, n, "10.77.0.2/24"); !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "taken by a bridge") {
		t.Errorf("a parent on a bridge: %v", err)
	}
}
