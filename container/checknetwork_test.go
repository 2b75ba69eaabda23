package container

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/shape"
)

// endpoints makes a request's networks.
func endpoints(list map[string]wirenet.EndpointSettings) *wirenet.NetworkingConfig {
	n := &wirenet.NetworkingConfig{EndpointsConfig: map[string]*wirenet.EndpointSettings{}}
	for name, e := range list {
		n.EndpointsConfig[name] = &e
	}
	return n
}

func address(text string) *wirenet.EndpointIPAMConfig {
	return &wirenet.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(text)}
}

func TestNetworkConflicts(t *testing.T) {
	s, err := assemble(checkerConfig(t.TempDir()), recordtest.Store(t, t.TempDir()), host{})
	if err != nil {
		t.Fatal(err)
	}
	type asked = map[string]wirenet.EndpointSettings
	var mac wirenet.HardwareAddr
	if err := mac.UnmarshalText([]byte("02:42:ac:11:00:09")); err != nil {
		t.Fatal(err)
	}
	check := func(c wire.Config, h wire.HostConfig, n *wirenet.NetworkingConfig) error {
		return (&creation{containers: s, req: &create.Request{Config: &c, HostConfig: &h, NetworkingConfig: n}}).checkNetwork()
	}
	port := wirenet.PortSet{wirenet.MustParsePort("80/tcp"): {}}
	for want, r := range map[string]struct {
		c wire.Config
		h wire.HostConfig
		n asked
	}{
		"hostname and the network mode": {c: wire.Config{Hostname: "x"}, h: wire.HostConfig{NetworkMode: "container:y"}},
		"domainname and the UTS mode":   {c: wire.Config{Domainname: "x"}, h: wire.HostConfig{NetworkMode: "bridge", UTSMode: "host"}},
		"hostname and the UTS mode":     {c: wire.Config{Hostname: "x"}, h: wire.HostConfig{NetworkMode: "bridge", UTSMode: "host"}},
		"port exposing":                 {c: wire.Config{ExposedPorts: port}, h: wire.HostConfig{NetworkMode: "container:y"}},
		"dns-search":                    {h: wire.HostConfig{NetworkMode: "container:y", DNSSearch: []string{"x"}}},
		"dns-option":                    {h: wire.HostConfig{NetworkMode: "container:y", DNSOptions: []string{"x"}}},
		"dns and the network mode":      {h: wire.HostConfig{NetworkMode: "container:y", DNS: []netip.Addr{{}}}},
		"mac-address":                   {h: wire.HostConfig{NetworkMode: "none"}, n: asked{"none": {MacAddress: mac}}},
		"invalid config for network bridge: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only": {
			h: wire.HostConfig{NetworkMode: "bridge"}, n: asked{"bridge": {IPAMConfig: address("172.17.0.9")}}},
		"invalid config for network host: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only": {
			h: wire.HostConfig{NetworkMode: "host"}, n: asked{"host": {IPAMConfig: address("10.0.0.9")}}},
		"invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks": {
			h: wire.HostConfig{NetworkMode: "bridge"}, n: asked{"bridge": {Aliases: []string{"a"}}}},
		"invalid config for network mine: invalid endpoint settings:\n* invalid IPv4 address: 0.0.0.0\n* invalid link-local IP address: ::\n* bad format for links: :b\n* unrecognised network interface sysctl 'net.ipv4.conf.eth0.x=1'; " +
			"represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'": {
			h: wire.HostConfig{NetworkMode: "mine"}, n: asked{"mine": {Links: []string{":b"}, DriverOpts: map[string]string{record.OptionSysctls: "net.ipv4.conf.IFNAME.a=1,net.ipv4.conf.eth0.x=1"},
				IPAMConfig: &wirenet.EndpointIPAMConfig{IPv4Address: netip.IPv4Unspecified(), LinkLocalIPs: []netip.Addr{netip.IPv6Unspecified()}}}}},
		"container sharing network namespace with another container or host cannot be connected to any other network": {
			h: wire.HostConfig{NetworkMode: "container:y"}, n: asked{"mine": {}}},
		"cannot connect container to host network - container must be created in host network mode": {
			h: wire.HostConfig{NetworkMode: "bridge"}, n: asked{"host": {}}},
		"container cannot be connected to multiple networks with one of the networks in private (none) mode": {
			h: wire.HostConfig{NetworkMode: "bridge"}, n: asked{"bridge": {}, "none": {}}},
	} {
		var n *wirenet.NetworkingConfig
		if r.n != nil {
			n = endpoints(r.n)
		}
		if err := check(r.c, r.h, n); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	null := endpoints(nil)
	null.EndpointsConfig["mine"] = nil
	if err := check(wire.Config{}, wire.HostConfig{NetworkMode: "mine"}, null); err == nil || err.Error() != "invalid config for network mine: EndpointsConfig is nil" {
		t.Error(err)
	}
	for mode, n := range map[string]asked{
		"bridge": {"bridge": {MacAddress: mac}}, "host": {"host": {}}, "none": {"none": {}}, "container:y": {"container:y": {}},
		"mine": {"mine": {IPAMConfig: address("10.0.0.9"), Aliases: []string{"a"}, Links: []string{"a:b"}}, "other": {GwPriority: -1}, "bridge": {}},
	} {
		if err := check(wire.Config{}, wire.HostConfig{NetworkMode: wire.NetworkMode(mode)}, endpoints(n)); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// TestPlaces: the network of the mode comes first, then all others by name.
func TestPlaces(t *testing.T) {
	e := &wirenet.EndpointSettings{}
	for _, c := range []struct {
		mode string
		nets []string
		want string
	}{
		{"bridge", nil, "bridge"}, {"none", nil, "none"}, {"container:x", nil, ""}, {"m", []string{"z", "a", "m"}, "m a z"},
		{"bridge", []string{"z", "a"}, "a z"}, {"bridge", []string{}, ""},
	} {
		r := Record{Spec: record.Spec{HostConfig: &wire.HostConfig{NetworkMode: wire.NetworkMode(c.mode)}}}
		for i, name := range c.nets {
			if i == 0 {
				r.Networks = map[string]*wirenet.EndpointSettings{}
			}
			r.Networks[name] = e
		}
		if c.nets != nil && r.Networks == nil {
			r.Networks = map[string]*wirenet.EndpointSettings{}
		}
		var got []string
		for _, p := range r.Places() {
			got = append(got, p.Network)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestWants(t *testing.T) {
	p := record.Place{Network: "n", Settings: &wirenet.EndpointSettings{Aliases: []string{"a"}, Links: []string{"db:store", "/web"}, GwPriority: 3,
		MacAddress: wirenet.HardwareAddr{2, 0, 0, 0, 0, 1}, IPAMConfig: &wirenet.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.0.0.9"),
			IPv6Address: netip.MustParseAddr("fd00::9"), LinkLocalIPs: []netip.Addr{netip.MustParseAddr("169.254.1.1")}},
		DriverOpts: map[string]string{record.OptionInterface: "lan0", record.OptionSysctls: "net.ipv4.conf.IFNAME.a=1,net.ipv6.conf.IFNAME.b=2", "other": "x", shape.OptionIn: "10mbit", shape.OptionOut: "5mbit"}}}
	want := network.Want{Network: "n", Interface: "lan0", Address: netip.MustParseAddr("10.0.0.9"), Address6: netip.MustParseAddr("fd00::9"),
		LinkLocal: []netip.Addr{netip.MustParseAddr("169.254.1.1")}, MAC: "02:00:00:00:00:01", Aliases: []string{"a"}, Links: map[string]string{"store": "db", "web": "web"},
		Sysctls: []string{"net.ipv4.conf.IFNAME.a=1", "net.ipv6.conf.IFNAME.b=2"}, Options: map[string]string{"other": "x"}, GwPriority: 3, Rate: network.Rate{In: 10_000_000, Out: 5_000_000}}
	if got, err := p.Want(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	p.ID = "cafe"
	if got, _ := p.Want(); got.Network != "cafe" {
		t.Errorf("the network of the last start is asked for by its ID: %+v", got)
	}
}

// TestConnectedTogether: which networks a container cannot be on at once.
func TestConnectedTogether(t *testing.T) {
	driver := map[string]string{"none": "null", "host": "host"}
	for _, c := range []struct {
		mode, name string
		want       error
	}{
		{"bridge", "mine", nil}, {"bridge", "bridge", nil}, {"bridge", "host", errNotHost}, {"bridge", "none", errNone}, {"none", "mine", errNone},
		{"none", "none", nil}, {"host", "mine", errShared}, {"host", "host", nil}, {"container:x", "mine", errShared}, {"mine", "bridge", nil},
	} {
		r := Record{Spec: record.Spec{HostConfig: &wire.HostConfig{NetworkMode: wire.NetworkMode(c.mode)}}}
		n := wirenet.Network{Name: c.name, Driver: driver[c.name]}
		if got := fits(&r, n, c.name); got != c.want {
			t.Errorf("%s with %s: %v, want %v", c.mode, c.name, got, c.want)
		}
	}
}
