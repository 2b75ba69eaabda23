package files

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tarehq/tare/fault"
)

func TestResolvConf(t *testing.T) {
	host := "# made by something\nnameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver ::1\nnameserver fe80::1%eth0\n" +
		"domain old.example\nsearch lan.example example\noptions ndots:2 edns0\n"
	for _, c := range []struct {
		name                 string
		host                 string
		dns, search, options []string
		want, wantHostMode   string
	}{
		{name: "the host's", host: host,
			want:         "nameserver 192.0.2.53\nsearch lan.example example\noptions ndots:2 edns0\n",
			wantHostMode: host},
		{name: "overridden", host: host, dns: []string{"192.0.2.1", "127.0.0.1"}, search: []string{"."}, options: []string{"rotate"},
			want:         "nameserver 192.0.2.1\nnameserver 127.0.0.1\noptions rotate\n",
			wantHostMode: "nameserver 192.0.2.1\nnameserver 127.0.0.1\noptions rotate\n"},
		{name: "none left", host: "nameserver 127.0.0.53\n",
			want:         "# no name server of this host can be reached from a container; name one with --dns\n",
			wantHostMode: "nameserver 127.0.0.53\n"},
	} {
		if diff := cmp.Diff(c.want, string(ResolvConf([]byte(c.host), c.dns, c.search, c.options, false))); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.wantHostMode, string(ResolvConfHostMode([]byte(c.host), c.dns, c.search, c.options))); diff != "" {
			t.Errorf("%s in host mode: %s", c.name, diff)
		}
	}
}

func TestResolvConfWithIPv6(t *testing.T) {
	got := string(ResolvConf([]byte("nameserver ::1\nnameserver fd00::53\nnameserver fe80::1%eth0\nnameserver 192.0.2.53\n"), nil, nil, nil, true))
	if got != "nameserver fd00::53\nnameserver 192.0.2.53\n" {
		t.Error(got)
	}
}

func TestResolvConfNames(t *testing.T) {
	const host = "nameserver 192.0.2.53\nsearch lan.example\noptions edns0 ndots:2\n"
	for _, c := range []struct {
		dns, search, options []string
		want                 string
	}{
		{want: "# ExtServers: [the host's]\nnameserver 127.0.0.11\nsearch lan.example\noptions edns0 ndots:0\n"},
		{dns: []string{"192.0.2.1", "fd00::1"}, search: []string{"."}, options: []string{"rotate"},
			want: "# ExtServers: [192.0.2.1 fd00::1]\nnameserver 127.0.0.11\noptions rotate ndots:0\n"},
		{options: []string{"ndots:3"}, want: "# ExtServers: [the host's]\nnameserver 127.0.0.11\nsearch lan.example\noptions ndots:3\n"},
	} {
		got := string(ResolvConfNames([]byte(host), c.dns, c.search, c.options))
		if _, got, _ = strings.Cut(got, "servers below.\n"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestResolvConfOfResolved(t *testing.T) {
	dir := t.TempDir()
	path, uplinks := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "uplinks")
	read := func() string {
		t.Helper()
		b, err := readResolvConf(path, uplinks)
		must(t, err)
		return string(b)
	}
	if got := read(); got != "" {
		t.Errorf("no file: %q", got)
	}
	must(t, os.WriteFile(path, []byte("nameserver 127.0.0.53\n"), 0o644))
	if got := read(); got != "nameserver 127.0.0.53\n" {
		t.Errorf("without uplinks: %q", got)
	}
	must(t, os.WriteFile(uplinks, []byte("nameserver 192.0.2.1\n"), 0o644))
	if got := read(); got != "nameserver 192.0.2.1\n" {
		t.Errorf("with uplinks: %q", got)
	}
	must(t, os.WriteFile(path, []byte("nameserver 192.0.2.9\n"), 0o644))
	if got := read(); got != "nameserver 192.0.2.9\n" {
		t.Errorf("not the stub: %q", got)
	}
}

func TestHosts(t *testing.T) {
	got, err := Hosts(HostsFile{
		Extra:        []string{"db:10.0.0.5", "gw=host-gateway", "six:2001:db8::1", "six2=[2001:db8::2]"},
		HostGateways: []netip.Addr{addr("172.17.0.1")}, Addresses: []netip.Addr{addr("172.17.0.2")}, Hostname: "web", Domainname: "example.com",
	})
	must(t, err)
	want := localhostLine + localhostLines6 + "10.0.0.5\tdb\n172.17.0.1\tgw\n2001:db8::1\tsix\n2001:db8::2\tsix2\n172.17.0.2\tweb.example.com web\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	got, err = Hosts(HostsFile{Addresses: []netip.Addr{addr("172.17.0.2")}, Hostname: "web.example.com"})
	if must(t, err); !strings.HasSuffix(string(got), "\n172.17.0.2\tweb.example.com web\n") {
		t.Errorf("a qualified host name: %q", got)
	}
	got, err = Hosts(HostsFile{Extra: []string{"gw:host-gateway"}, HostGateways: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::9")}})
	if must(t, err); !strings.HasSuffix(string(got), "\n192.0.2.1\tgw\n2001:db8::9\tgw\n") {
		t.Errorf("two gateways: %q", got)
	}
	got, err = Hosts(HostsFile{NoIPv6: true, Addresses: []netip.Addr{addr("172.17.0.2"), addr("fd00::2")}, Hostname: "web"})
	if must(t, err); string(got) != "127.0.0.1\tlocalhost\n172.17.0.2\tweb\n" {
		t.Errorf("without IPv6: %q", got)
	}
	got, err = Hosts(HostsFile{Base: []byte("127.0.0.1 localhost"), Extra: []string{"a:1.2.3.4"}})
	if must(t, err); string(got) != "127.0.0.1 localhost\n1.2.3.4\ta\n" {
		t.Errorf("host mode: %q", got)
	}
	for _, bad := range []string{"", "name", ":1.2.3.4", "name:", "name:nowhere", "gw:host-gateway", "a b:1.2.3.4", "a:1.2.3.4\nevil"} {
		if _, err := Hosts(HostsFile{Extra: []string{bad}}); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
