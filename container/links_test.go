package container

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/network"
)

func TestParseLink(t *testing.T) {
	for text, want := range map[string]string{"db": "db db", "db:x": "db x", "/db:/web/x": "db x", "": "", ":x": "", "db:": "", "db:/web/": "", "db:a b": "", "db:a\nb": ""} {
		name, alias, err := parseLink(text)
		if (err != nil) != (want == "") || err == nil && name+" "+alias != want {
			t.Errorf("%q: %s %s %v, want %q", text, name, alias, err, want)
		}
	}
}

func target(env []string, ports ...string) Record {
	set := wirenet.PortSet{}
	for _, p := range ports {
		set[wirenet.MustParsePort(p)] = struct{}{}
	}
	return Record{Spec: Spec{Name: "db", Config: &wire.Config{Hostname: "h", Env: env, ExposedPorts: set}},
		Progress: Progress{Sandbox: &network.Sandbox{Endpoints: []network.Endpoint{{NetworkName: "bridge", Address: netip.MustParsePrefix("10.0.0.2/24")}}}}}
}

func TestLinkEnvironment(t *testing.T) {
	got := linkEnv("web", []string{"data-base"}, []Record{target([]string{"A=1", "HOME=/x", "PATH=/y", "bare"}, "81/tcp", "53/udp", "80/tcp")})
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
	if got := linkEnv("web", []string{"x"}, []Record{target(nil)}); !slices.Equal(got, []string{"X_NAME=/web/x"}) {
		t.Errorf("without ports: %q", got)
	}
}

func TestHostsFollowALink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte("# database\n10.0.0.2\tdatabase dbhost db\n10.0.0.222\tdatabase2\nown line without end"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if err := rewriteHosts(path, "database", netip.MustParseAddr("10.0.0.3")); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	if want := "# database\n10.0.0.3\tdatabase dbhost db\n10.0.0.222\tdatabase2\nown line without end"; string(text) != want {
		t.Errorf("%q", text)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("it is another file, which the container does not see")
	}
	if err := rewriteHosts(path, "database", netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	if text, _ = os.ReadFile(path); string(text) != "# database\n10.0.0.222\tdatabase2\nown line without end" {
		t.Errorf("the link is removed: %q", text)
	}
	if err := os.WriteFile(path, make([]byte, maxHosts+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := rewriteHosts(path, "database", netip.MustParseAddr("10.0.0.3")); err == nil {
		t.Error("a file without end is read")
	}
}

func TestWhoIsLinked(t *testing.T) {
	var l links
	a := &Record{Spec: Spec{ID: "a", Links: []Link{{"t", "x"}, {"t", "y"}}}}
	b := &Record{Spec: Spec{ID: "b", Links: []Link{{"t", "x"}}}}
	l.add(a)
	l.add(b)
	if got := l.to("t"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	l.drop(a)
	if got := l.to("t"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q", got)
	}
	l.forget(&Record{Spec: Spec{ID: "t"}})
	if len(l.to("t")) != 0 {
		t.Error("links to a container that is gone")
	}
}
