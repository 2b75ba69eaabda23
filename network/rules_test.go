package network

import (
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// publishing is a sandbox with one endpoint.
func publishing(at netip.Prefix, ports []Published) Sandbox {
	return Sandbox{Endpoints: []Endpoint{{Address: at, Gateway: at.Masked().Addr().Next()}}, Ports: ports}
}

func TestRuleset(t *testing.T) {
	any4 := netip.IPv4Unspecified()
	web := publishing(netip.MustParsePrefix("172.17.0.2/16"), []Published{
		{any4, 8080, 80, "tcp"}, {any4, 8080, 80, "udp"}, {addr("127.0.0.1"), 5432, 5432, "tcp"},
		{any4, 9002, 9002, "tcp"}, {any4, 9000, 9000, "tcp"}, {any4, 9001, 9001, "tcp"},
	})
	shifted := publishing(netip.MustParsePrefix("172.17.0.3/16"), []Published{
		{any4, 8000, 9000, "tcp"}, {any4, 8001, 9001, "tcp"},
		{addr("192.0.2.1"), 7000, 7000, "udp"}, {addr("192.0.2.1"), 7001, 7001, "udp"},
	})
	r := ruleset{Table: "tare-tare0", Bridge: "tare0", Subnet: netip.MustParsePrefix("172.17.0.0/16")}
	r.Elements = append(elementsOf(web), elementsOf(shifted)...)
	const golden = "testdata/table.nft"
	if *update {
		must(t, os.WriteFile(golden, []byte(r.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if diff := cmp.Diff(string(want), r.String()); diff != "" {
		t.Error(diff)
	}
}

func TestRunsOfEqualPorts(t *testing.T) {
	publish := func(ports ...uint16) (out []Published) {
		for i := 0; i < len(ports); i += 2 {
			out = append(out, Published{netip.IPv4Unspecified(), ports[i], ports[i+1], "tcp"})
		}
		return out
	}
	for _, c := range []struct {
		ports []Published
		want  []string
	}{
		{nil, nil},
		{publish(80, 80), []string{"tcp . 80 : 10.0.0.2 . 80"}},
		{publish(81, 81, 80, 80, 83, 83), []string{"tcp . 80-81 : 10.0.0.2", "tcp . 83 : 10.0.0.2 . 83"}},
		{publish(80, 80, 81, 91, 82, 82), []string{"tcp . 80 : 10.0.0.2 . 80", "tcp . 81 : 10.0.0.2 . 91", "tcp . 82 : 10.0.0.2 . 82"}},
		{publish(65534, 65534, 65535, 65535), []string{"tcp . 65534-65535 : 10.0.0.2"}},
	} {
		var got []string
		for _, e := range elementsOf(publishing(netip.MustParsePrefix("10.0.0.2/24"), c.ports)) {
			got = append(got, e.String())
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v: %s", c.ports, diff)
		}
	}
}
