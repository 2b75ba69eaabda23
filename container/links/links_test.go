package links

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/network"
)

func target(env []string, ports ...string) record.Record {
	set := wirenet.PortSet{}
	for _, p := range ports {
		set[wirenet.MustParsePort(p)] = struct{}{}
	}
	return record.Record{Spec: record.Spec{Name: "db", Config: &wire.Config{Hostname: "h", Env: env, ExposedPorts: set}},
		Progress: record.Progress{Sandbox: &network.Sandbox{Endpoints: []network.Endpoint{{NetworkName: "bridge", Address: netip.MustParsePrefix("10.0.0.2/24")}}}}}
}

func TestLinkEnvironment(t *testing.T) {
	got := linkEnv("web", []linked{{"data-base", target([]string{"A=1", "HOME=/x", "PATH=/y", "bare"}, "81/tcp", "53/udp", "80/tcp")}})
	want := strings.Fields(`DATA_BASE_PORT=tcp://10.0.0.2:80
		DATA_BASE_PORT_80_TCP_START=tcp://10.0.0.2:80 DATA_BASE_PORT_80_TCP_PORT_START=80
		DATA_BASE_PORT_80_TCP_END=tcp://10.0.0.2:81 DATA_BASE_PORT_80_TCP_PORT_END=81
		DATA_BASE_PORT_80_TCP=tcp://10.0.0.2:80 DATA_BASE_PORT_80_TCP_ADDR=10.0.0.2 DATA_BASE_PORT_80_TCP_PORT=80 DATA_BASE_PORT_80_TCP_PROTO=tcp
		DATA_BASE_PORT_81_TCP=tcp://10.0.0.2:81 DATA_BASE_PORT_81_TCP_ADDR=10.0.0.2 DATA_BASE_PORT_81_TCP_PORT=81 DATA_BASE_PORT_81_TCP_PROTO=tcp
		DATA_BASE_PORT_53_UDP=udp://10.0.0.2:53 DATA_BASE_PORT_53_UDP_ADDR=10.0.0.2 DATA_BASE_PORT_53_UDP_PORT=53 DATA_BASE_PORT_53_UDP_PROTO=udp
		DATA_BASE_NAME=/web/data-base DATA_BASE_ENV_A=1`)
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := linkEnv("web", []linked{{"x", target(nil)}}); !slices.Equal(got, []string{"X_NAME=/web/x"}) {
		t.Errorf("without ports: %q", got)
	}
}

func TestWhoIsLinked(t *testing.T) {
	l := New(recordtest.Store(t, t.TempDir()), nil)
	a := &record.Record{Spec: record.Spec{ID: "a", Links: []record.Link{{Target: "t", Alias: "x"}, {Target: "t", Alias: "y"}}}}
	b := &record.Record{Spec: record.Spec{ID: "b", Links: []record.Link{{Target: "t", Alias: "x"}}}}
	l.Add(a)
	l.Add(b)
	if got := l.to("t"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	l.Drop(a)
	if got := l.to("t"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q", got)
	}
	l.Forget(&record.Record{Spec: record.Spec{ID: "t"}})
	if len(l.to("t")) != 0 {
		t.Error("links to a container that is gone")
	}
}
