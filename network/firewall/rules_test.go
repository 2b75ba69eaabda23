package firewall

import (
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

var (
	any4 = netip.IPv4Unspecified()
	any6 = netip.IPv6Unspecified()
)

func plain(id, bridge, subnet string) Network {
	p := prefix(subnet)
	return Network{ID: id, Name: id, Bridge: bridge, Subnet4: p, Gateway4: p.Addr().Next(), MAC: "02:42:00:00:00:01", ICC: true, Masquerade: true}
}

func place(n Network, port, mac string, addresses ...string) Place {
	p := Place{Network: n.ID, Port: port, MAC: mac}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, addr(a))
	}
	return p
}

// one is a sandbox on one network.
func one(id string, n Network, ports []Port, addresses ...string) Sandbox {
	s := Sandbox{ID: id, Name: id, Ports: ports, Places: []Place{place(n, "tv"+id, "02:42:00:00:01:02", addresses...)}}
	for _, a := range s.Places[0].Addresses {
		if a.Is4() {
			s.Target4 = Target{n.ID, a}
		} else {
			s.Target6 = Target{n.ID, a}
		}
	}
	return s
}

func TestRules(t *testing.T) {
	bridge := plain("bridge", "tare0", "172.17.0.0/16")
	dual := plain("dual", "br-dual", "172.18.0.0/16")
	dual.Subnet6, dual.Gateway6, dual.ICC = prefix("fd00:18::/64"), addr("fd00:18::1"), false
	inner := plain("inner", "br-inner", "172.19.0.0/16")
	inner.Internal = true
	routed := plain("routed", "br-routed", "172.20.0.0/16")
	routed.Mode4 = ModeRouted
	open := plain("open", "br-open", "172.21.0.0/16")
	open.Mode4, open.Source4 = ModeUnprotected, addr("192.0.2.7")
	trusted := plain("trusted", "br-trusted", "172.22.0.0/16")
	trusted.Trusted = []string{"wg0"}
	all := []Network{trusted, bridge, dual, inner, routed, open}
	web := []Port{{any4, 8080, 80, "tcp"}, {any4, 8080, 80, "udp"}, {addr("127.0.0.1"), 5432, 5432, "tcp"},
		{any4, 9002, 9002, "tcp"}, {any4, 9000, 9000, "tcp"}, {any4, 9001, 9001, "tcp"}}
	shifted := []Port{{any4, 8000, 9000, "tcp"}, {any4, 8001, 9001, "tcp"},
		{addr("192.0.2.1"), 7000, 7000, "udp"}, {addr("192.0.2.1"), 7001, 7001, "udp"}}
	both := []Port{{any4, 8081, 80, "tcp"}, {any6, 8081, 80, "tcp"}, {addr("2001:db8::1"), 82, 82, "sctp"}}
	two := one("two", dual, both, "172.18.0.2", "fd00:18::2")
	two.Places = append(two.Places, place(inner, "tvtwo2", "02:42:00:00:02:02", "172.19.0.2"))
	sandboxes := []Sandbox{
		one("web", bridge, web, "172.17.0.2"), one("shifted", bridge, shifted, "172.17.0.3"), two,
		one("routed", routed, []Port{{any4, 0, 80, "tcp"}, {any4, 0, 81, "tcp"}}, "172.20.0.2"),
		one("direct", trusted, []Port{{any4, 8090, 80, "tcp"}}, "172.22.0.2"),
	}
	for name, o := range map[string]Options{
		"plain":  {Table: "tare-tare0", Ports: []string{"tvabcde"}},
		"strict": {Table: "tare-tare0", Ports: []string{"tvabcde"}, DirectRouting: true, AcceptMark: 0x1, AcceptMask: 0xff, HostFirewall: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := Rules(o, all, sandboxes).String()
			golden := "testdata/" + name + ".nft"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
			slices.Reverse(sandboxes)
			if again := Rules(o, all, sandboxes).String(); again != got {
				t.Error("the order of the sandboxes shows in the rules")
			}
		})
	}
}

// What a sandbox adds is what the whole has more with it.
func TestElementsAreTheDifference(t *testing.T) {
	n := plain("n", "br-n", "10.0.0.0/24")
	n.ICC, n.Trusted = false, []string{"wg0"}
	o := Options{Table: "t", Ports: []string{"tv"}}
	s := one("a", n, []Port{{any4, 80, 80, "tcp"}, {any4, 81, 82, "tcp"}}, "10.0.0.2")
	var want []string
	before := Rules(o, []Network{n}, nil).String()
	for _, e := range Rules(o, []Network{n}, []Sandbox{s}).Elements() {
		if !strings.Contains(before, e.Text) {
			want = append(want, e.Family.String()+" "+e.Set+" "+e.Text)
		}
	}
	var got []string
	for _, e := range Elements(o, []Network{n}, s) {
		if !strings.Contains(before, e.Text) {
			got = append(got, e.Family.String()+" "+e.Set+" "+e.Text)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRunsOfEqualPorts(t *testing.T) {
	publish := func(ports ...uint16) (out []Port) {
		for i := 0; i < len(ports); i += 2 {
			out = append(out, Port{any4, ports[i], ports[i+1], "tcp"})
		}
		return out
	}
	n := plain("n", "br-n", "10.0.0.0/24")
	for _, c := range []struct {
		ports []Port
		want  []string
	}{
		{nil, nil},
		{publish(80, 80), []string{"tcp . 80 : 10.0.0.2 . 80"}},
		{publish(81, 81, 80, 80, 83, 83), []string{"tcp . 80-81 : 10.0.0.2", "tcp . 83 : 10.0.0.2 . 83"}},
		{publish(80, 80, 81, 91, 82, 82), []string{"tcp . 80 : 10.0.0.2 . 80", "tcp . 81 : 10.0.0.2 . 91", "tcp . 82 : 10.0.0.2 . 82"}},
		{publish(65534, 65534, 65535, 65535), []string{"tcp . 65534-65535 : 10.0.0.2"}},
	} {
		var got []string
		for _, e := range Elements(Options{}, []Network{n}, one("a", n, c.ports, "10.0.0.2")) {
			if e.Family == IP4 {
				got = append(got, e.Text)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v: %s", c.ports, diff)
		}
	}
}
