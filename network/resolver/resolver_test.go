package resolver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/dns"
)

// buildResolver builds tare-dns into a directory.
func buildResolver(t *testing.T, dir string) func() (string, error) {
	t.Helper()
	path := filepath.Join(dir, "tare-dns")
	build := exec.Command("go", "build", "-o", path, "../../cmd/tare-dns")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func() (string, error) { return path, nil }
}

// emptyPlace is a namespace with nothing but lo.
func emptyPlace(t *testing.T) place {
	t.Helper()
	var p place
	var err error
	home, openErr := os.Open("/proc/thread-self/ns/net")
	must(t, openErr)
	defer home.Close()
	thread.Own(func() bool {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			p.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		if err == nil {
			err = ifUp("lo")
		}
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	})
	must(t, err)
	t.Cleanup(func() { p.ns.Close() })
	return p
}

// lookup asks the resolver of the place.
func (p place) lookup(host string, patience time.Duration) ([]string, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, proto, _ string) (conn net.Conn, err error) {
		err = p.try(func() error { conn, err = new(net.Dialer).DialContext(ctx, proto, dns.Address.String()); return err })
		return conn, err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.LookupHost(ctx, host+".")
}

func (p place) finds(t *testing.T, when, host, want string) {
	t.Helper()
	if got, err := p.lookup(host, 20*time.Second); err != nil || !slices.Equal(got, []string{want}) {
		t.Errorf("%s, %s is %v, %v; want %s", when, host, got, err, want)
	}
}

func (p place) findsNot(t *testing.T, when, host string) {
	t.Helper()
	if got, err := p.lookup(host, 20*time.Second); err == nil {
		t.Errorf("%s, %s is %v", when, host, got)
	}
}

func resolverSandbox(id, name, address string) network.Sandbox {
	return network.Sandbox{ID: id, Name: name, Endpoints: []network.Endpoint{{NetworkID: "n", NetworkName: "net", DNSNames: []string{name}, Address: netip.MustParsePrefix(address)}}}
}

// openDNS opens it in the directory. At the end of the test no process is left
// there, whatever came of it.
func openDNS(t *testing.T, program func() (string, error), dir string) *EmbeddedDNS {
	t.Helper()
	d := Open(t.Context(), program, dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
	t.Cleanup(func() {
		d.Close()
		if conn, err := dns.Dial(filepath.Join(dir, dns.SocketName)); err == nil {
			t.Error("a process is left")
			_ = conn.Kill()
			conn.Close()
		}
	})
	return d
}

// hello asks the process at the directory who it is.
func hello(t *testing.T, dir string) *dns.Hello {
	t.Helper()
	conn, err := dns.Dial(filepath.Join(dir, dns.SocketName))
	must(t, err)
	defer conn.Close()
	h, err := conn.Hello(t.Context())
	must(t, err)
	return h
}

func gone(dir string) func() bool {
	return func() bool { _, err := os.Stat(filepath.Join(dir, dns.SocketName)); return err != nil }
}

// The process goes on while there is no daemon, another daemon takes it up,
// replaces it by its own version, and takes back what is no more; when it dies
// the daemon starts another one and tells it everything.
func TestResolverOutlivesEverybody(t *testing.T) {
	if !asHost(t) {
		return
	}
	dir := t.TempDir()
	program := buildResolver(t, t.TempDir())
	d := openDNS(t, program, dir)
	web, db := emptyPlace(t), emptyPlace(t)
	set := func(d *EmbeddedDNS, s network.Sandbox, p place) []*os.File {
		t.Helper()
		held, err := d.Set(t.Context(), s, p.ns, nil)
		must(t, err)
		return held
	}
	set(d, network.Sandbox{ID: "bridge", Endpoints: []network.Endpoint{{NetworkID: "b", NetworkName: "bridge"}}}, web)
	if !gone(dir)() {
		t.Error("a resolver is started for a container without names")
	}
	prepared, err := d.Prepare(web.ns)
	must(t, err)
	held, err := d.Set(t.Context(), resolverSandbox("w", "web", "10.1.0.2/24"), web.ns, prepared)
	must(t, err)
	held = append(held, set(d, resolverSandbox("d", "db", "10.1.0.3/24"), db)...)
	defer closeAll(held)
	if len(held) != 2 || held[0].Name() != LifelineName {
		t.Errorf("to be held: %v", held)
	}
	web.finds(t, "at first", "db", "10.1.0.3")
	db.finds(t, "at first", "web.net", "10.1.0.2")
	first := hello(t, dir)

	must(t, unix.Kill(first.PID, unix.SIGKILL))
	testutil.Eventually(t, 10*time.Second, "another one answers", func() bool { _, err := web.lookup("db", time.Second); return err == nil })
	db.finds(t, "after its death", "web", "10.1.0.2")
	second := hello(t, dir)

	d.Close()
	web.finds(t, "without a daemon", "db", "10.1.0.3")
	d = openDNS(t, program, dir)
	must(t, func() error {
		_, err := d.Set(t.Context(), resolverSandbox("w", "web", "10.1.0.2/24"), nil, nil)
		return err
	}())
	d.Settle()
	web.finds(t, "with another daemon", "web", "10.1.0.2")
	web.findsNot(t, "when it is not set any more", "db")
	set(d, resolverSandbox("d", "db2", "10.1.0.3/24"), db)
	web.finds(t, "under another name", "db2", "10.1.0.3")
	if now := hello(t, dir); now.PID != second.PID || now.PID == first.PID {
		t.Errorf("the processes are %d, %d and %d", first.PID, second.PID, now.PID)
	}
	d.Close()

	path, err := program()
	must(t, err)
	other := filepath.Join(t.TempDir(), "tare-dns")
	must(t, exec.Command("cp", path, other).Run())
	d = openDNS(t, func() (string, error) { return other, nil }, dir)
	if now := hello(t, dir); now.PID != second.PID || now.Program == second.Program {
		t.Errorf("another version is %+v, was %+v", now, second)
	}
	web.finds(t, "with another version", "db2", "10.1.0.3")
	d.Drop("w")
	d.Drop("d")
	d.Close()
	testutil.Eventually(t, 10*time.Second, "the process ends", gone(dir))
}

// The process alone knows what it has when the daemon was killed; if both are
// gone the namespace is found by its path.
func TestResolverIsMadeAnew(t *testing.T) {
	if !asHost(t) {
		return
	}
	dir := t.TempDir()
	program := buildResolver(t, t.TempDir())
	d := openDNS(t, program, dir)
	web := emptyPlace(t)
	s := resolverSandbox("w", "web", "10.1.0.2/24")
	held, err := d.Set(t.Context(), s, web.ns, nil)
	must(t, err)
	defer closeAll(held)
	d.Close()
	was := hello(t, dir)
	must(t, unix.Kill(was.PID, unix.SIGKILL))
	testutil.Eventually(t, 10*time.Second, "it is gone", func() bool { _, err := web.lookup("web", 200*time.Millisecond); return err != nil })

	d = openDNS(t, program, dir)
	s.NetNSPath = fmt.Sprintf("/proc/self/fd/%d", web.ns.Fd())
	_, err = d.Set(t.Context(), s, nil, nil)
	must(t, err)
	web.finds(t, "after both were gone", "web", "10.1.0.2")
	// One that does not answer is ended. The next one has the usual patience.
	d.conn.Patience = time.Second
	testutil.Stop(t, hello(t, dir).PID)
	s.Endpoints[0].DNSNames = []string{"www"}
	_, err = d.Set(t.Context(), s, nil, nil)
	must(t, err)
	web.finds(t, "after it did not answer", "www", "10.1.0.2")
	d.Drop("w")
	d.Close()
	testutil.Eventually(t, 10*time.Second, "the process ends", gone(dir))
}

// Names are looked for on internal networks last, else where the default route
// is first; whether the world may be asked follows from the networks.
func TestLookups(t *testing.T) {
	gateway := netip.MustParseAddr("10.1.0.1")
	on := func(name string, priority int, internal bool, names ...string) network.Endpoint {
		e := network.Endpoint{NetworkID: "id-" + name, NetworkName: name, DNSNames: names, Internal: internal, GwPriority: priority, Address: netip.MustParsePrefix("10.1.0.2/24")}
		if !internal {
			e.Gateway = gateway
		}
		return e
	}
	for _, c := range []struct {
		endpoints []network.Endpoint
		options   []string
		want      string
	}{
		{[]network.Endpoint{on("z", 9, true, "web"), on("b", 0, false, "web"), on("a", 0, false, "web"), on("c", 1, false, "web")}, []string{"ndots:2"}, "[c a b z] external true dots true"},
		{[]network.Endpoint{on("z", 0, true, "web"), on("y", 1, true, "web")}, []string{"ndots:x", "edns0"}, "[y z] external false dots false"},
		{[]network.Endpoint{on("bridge", 0, false), on("z", 0, true, "web")}, []string{"edns0"}, "[z] external true dots false"},
	} {
		got := lookups(network.Sandbox{ID: "s", Endpoints: c.endpoints, DNS: network.Resolver{Options: c.options}})
		var order []string
		for _, p := range got.Places {
			order = append(order, p.Network)
		}
		if text := fmt.Sprintf("%v external %v dots %v", order, got.External, got.Dots); text != c.want {
			t.Errorf("%s, want %s", text, c.want)
		}
	}
}
