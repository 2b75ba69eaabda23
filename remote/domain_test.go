package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote/hosts"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/registry"
)

const name = "registry.example" // which no test lets the client look up

// dialTo leads all connections of a domain's endpoints to an address.
func dialTo(t *testing.T, c *Client, domain, address string) []*endpoint {
	t.Helper()
	endpoints, err := c.endpoints(t.Context(), domain)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range endpoints {
		e.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}
	return endpoints
}

func hostsToml(lines ...string) map[string]string {
	return map[string]string{"hosts.toml": strings.Join(lines, "\n")}
}

func everything(*faulty.Request) bool { return true }

func TestMirrors(t *testing.T) {
	origin, second := registry.Start(t, registry.Options{Htpasswd: map[string]string{"ann": "secret"}}), registry.Start(t, registry.Options{})
	front := faulty.Start(t, faulty.Options{Registry: origin})
	dead, mirror := faulty.Start(t, faulty.Options{Registry: second}), faulty.Start(t, faulty.Options{Registry: second})
	dead.On(faulty.Always(everything, faulty.Fault{Status: 503}))
	dir := hostsDir(t, t.TempDir(), front.Host, hostsToml(
		`server = "`+front.URL+`"`,
		`[host."`+dead.URL+`"]`,
		`[host."`+mirror.URL+`"]`,
		`  capabilities = ["pull", "resolve"]`,
		`  [host."`+mirror.URL+`".header]`,
		`    x-team = ["a", "b"]`,
		`  [host."`+mirror.URL+`".rewrite]`,
		`    "^library/(.*)" = "hub/$1"`,
	))
	plain := newClient(t, Config{})
	there := at(plain, second.Host, "hub/app")
	data := random(500_000)
	layer := pushBytes(t, there, "application/x", data)
	image := pushImage(t, there, "v1", nil, layer)

	c := newClient(t, Config{HostsDir: dir})
	r := at(c, front.Host, "library/app", Credentials{Username: "ann", Password: "secret"})
	if d, _, err := r.Manifest(t.Context(), "v1"); err != nil || d.Digest != image.Digest {
		t.Fatalf("%+v %v", d, err)
	}
	if got, err := readBlob(r, layer, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes %v", len(got), err)
	}
	if n := dead.Count(everything); n != 1 {
		t.Errorf("a dead mirror was asked %d times", n)
	}
	if n := front.Count(everything); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	for _, q := range mirror.Requests(everything) {
		if q.Authorized() {
			t.Errorf("the mirror got the registry's credentials: %s %s", q.Method, q.Path)
		}
		if q.Query.Get("ns") != front.Host || strings.Join(q.Header["X-Team"], "") != "ab" {
			t.Errorf("%s %s has ns=%s and %v", q.Method, q.Path, q.Query.Get("ns"), q.Header["X-Team"])
		}
	}
	for _, q := range dead.Requests(everything) {
		if q.Authorized() {
			t.Error("the dead mirror got the registry's credentials")
		}
	}
	// What the mirror lacks comes from the registry, and so does what its
	// connection breaks off.
	own := at(plain, origin.Host, "library/app", Credentials{Username: "ann", Password: "secret"})
	onlyThere := pushBytes(t, own, "application/x", random(1000))
	if _, err := readBlob(r, onlyThere, 0, -1); err != nil {
		t.Error(err)
	}
	pushBytes(t, own, "application/x", data)
	mirror.On(faulty.Always(faulty.Blobs(), faulty.Fault{Cut: true, CutAfter: 1000}))
	if got, err := readBlob(r, layer, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes %v", len(got), err)
	}
	// A push goes to the first that may be pushed to: here not to the mirror.
	mirror.Forget()
	dead.Forget()
	pushImage(t, r, "mine", nil, pushBytes(t, r, "application/x", random(1000)))
	if n := mirror.Count(everything); n != 0 {
		t.Errorf("a push asked the mirror %d times", n)
	}
	if _, err := own.Resolve(t.Context(), "mine"); err != nil {
		t.Error(err)
	}
	// The last answer is the registry's.
	if _, err := r.Resolve(t.Context(), "nothing"); !errors.Is(err, fault.NotFound) || err.Error() != "manifest unknown: manifest unknown" {
		t.Error(err)
	}
}

// A mirror whose name is not known, or whose certificate is not, is left out.
func TestMirrorThatCannotBe(t *testing.T) {
	reg, secure := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{TLS: true})
	other := registry.Start(t, registry.Options{TLS: true})
	dir := hostsDir(t, t.TempDir(), reg.Host, hostsToml(`[host."https://no.such.name.invalid"]`, `[host."`+secure.URL+`"]`, `ca = "`+other.CA+`"`))
	c := newClient(t, Config{HostsDir: dir})
	pushImage(t, at(newClient(t, Config{}), reg.Host, "a/b"), "v1", nil)
	if _, err := at(c, reg.Host, "a/b").Resolve(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	endpoints, err := c.endpoints(t.Context(), reg.Host)
	if err != nil || len(endpoints) != 3 || !endpoints[0].isDown() || !endpoints[1].isDown() || endpoints[2].isDown() {
		t.Errorf("%d endpoints, %v", len(endpoints), err)
	}
}

func TestPushToAMirror(t *testing.T) {
	mirror := registry.Start(t, registry.Options{})
	dir := hostsDir(t, t.TempDir(), "_default", hostsToml(`[host."`+mirror.URL+`"]`))
	r := at(newClient(t, Config{HostsDir: dir}), name, "a/b")
	image := pushImage(t, r, "v1", nil, pushBytes(t, r, "application/x", random(1000)))
	if d, err := at(newClient(t, Config{}), mirror.Host, "a/b").Resolve(t.Context(), "v1"); err != nil || d.Digest != image.Digest {
		t.Errorf("%+v %v", d, err)
	}
}

func TestDockerMirrors(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	front := faulty.Start(t, faulty.Options{Registry: reg})
	image := pushImage(t, at(newClient(t, Config{}), reg.Host, "library/app"), "v1", nil)
	c := newClient(t, Config{Mirrors: []string{front.URL + "/"}})
	r := at(c, "docker.io", "library/app", Credentials{Username: "ann", Password: "secret"})
	if d, err := r.Resolve(t.Context(), "v1"); err != nil || d.Digest != image.Digest {
		t.Errorf("%+v %v", d, err)
	}
	if n := front.Count((*faulty.Request).Authorized); n != 0 {
		t.Errorf("the mirror got Docker Hub's credentials %d times", n)
	}
	endpoints, err := c.endpoints(t.Context(), "docker.io")
	if err != nil || len(endpoints) != 2 || endpoints[1].host != "registry-1.docker.io" || endpoints[0].can&hosts.Push != 0 {
		t.Errorf("%+v %v", endpoints, err)
	}
	dir := hostsDir(t, t.TempDir(), "docker.io", hostsToml(`server = "https://docker.io"`))
	if hub, err := newClient(t, Config{HostsDir: dir}).endpoints(t.Context(), "docker.io"); err != nil || hub[0].host != "registry-1.docker.io" {
		t.Errorf("%+v %v", hub, err)
	}
	other, err := c.endpoints(t.Context(), name)
	if err != nil || len(other) != 1 {
		t.Errorf("another registry has Docker Hub's mirrors: %+v %v", other, err)
	}
}

func TestHostsAreReadAnew(t *testing.T) {
	first, second := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{})
	pushImage(t, at(newClient(t, Config{}), first.Host, "a/b"), "one", nil)
	pushImage(t, at(newClient(t, Config{}), second.Host, "a/b"), "two", nil)
	dir := t.TempDir()
	c := newClient(t, Config{HostsDir: dir})
	r := at(c, name, "a/b")
	for _, step := range []struct {
		files map[string]string
		tag   string
		want  string
	}{
		{hostsToml(`server = "` + first.URL + `"`), "one", ""},
		{hostsToml(`server = "` + second.URL + `"`), "two", ""},
		{hostsToml(`server = "ftp://x"`), "two", filepath.Join(dir, name, "hosts.toml") + `: server: "ftp://x" has the scheme ftp`},
		{hostsToml(`server = "`+second.URL+`"`, "colour = 1"), "two", "hosts.toml: line 2: unknown key colour"},
		{hostsToml(`server = "`+second.URL+`"`, `ca = "nothing.pem"`), "two", "nothing.pem: no such file"},
		{hostsToml(`server = "`+second.URL+`"`, `ca = "ca.pem"`), "two", "ca.pem: no such file"},
		{map[string]string{"ca.pem": "no certificate"}, "two", "ca.pem holds no certificate"},
		{hostsToml(`server = "` + second.URL + `"`), "two", ""},
		{map[string]string{"x.cert": ""}, "two", "missing key x.key for client certificate"},
	} {
		hostsDir(t, dir, name, step.files)
		_, err := r.Resolve(t.Context(), step.tag)
		if step.want == "" && err != nil || step.want != "" && (err == nil || !strings.Contains(err.Error(), step.want)) {
			t.Errorf("%v: %v, want %q", step.files, err, step.want)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	reg := registry.Start(t, registry.Options{TLS: true})
	cert, key := fileText(t, filepath.Join(filepath.Dir(reg.CA), "server.crt")), fileText(t, filepath.Join(filepath.Dir(reg.CA), "server.key"))
	files := map[string]string{"ca.crt": fileText(t, reg.CA), "me.cert": cert, "me.key": key}
	both := hostsToml(`client = "both.pem"`, `ca = ["ca.pem"]`)
	both["both.pem"], both["ca.pem"] = cert+key, files["ca.crt"]
	pairs := hostsToml(`client = [["me.cert", "me.key"], "both.pem"]`, `ca = "`+reg.CA+`"`)
	pairs["both.pem"], pairs["me.cert"], pairs["me.key"] = cert+key, cert, key
	for what, f := range map[string]map[string]string{"Docker's files": files, "one file": both, "pairs": pairs} {
		c := newClient(t, Config{HostsDir: hostsDir(t, t.TempDir(), reg.Host, f)})
		endpoints, err := c.endpoints(t.Context(), reg.Host)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		config := endpoints[0].transport.TLSClientConfig
		if len(config.Certificates) == 0 || config.InsecureSkipVerify || config.RootCAs == nil {
			t.Errorf("%s: %d certificates, verification %v", what, len(config.Certificates), !config.InsecureSkipVerify)
		}
		if _, err := at(c, reg.Host, "a/b").Tags(t.Context()); !errors.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestInsecure(t *testing.T) {
	for _, test := range []struct {
		list    string
		host    string
		schemes string
	}{
		{"", "registry.example", "https"},
		{"", "127.0.0.1:5000", "https http"},
		{"", "127.9.9.9", "https http"},
		{"", "[::1]:5000", "https http"},
		{"", "localhost:5000", "https http"},
		{"", "localhost.example", "https"},
		{"", "10.0.0.1:5000", "https"},
		{"10.0.0.0/8", "10.0.0.1:5000", "https http"},
		{"10.0.0.0/8", "11.0.0.1:5000", "https"},
		{"Registry.Example", "registry.example:5000", "https http"},
		{"registry.example:5000", "registry.example:5000", "https http"},
		{"registry.example:5000", "registry.example:5001", "https"},
		{"fd00::/8", "[fd00::1]:5000", "https http"},
	} {
		config := Config{}
		if test.list != "" {
			config.Insecure = []string{test.list}
		}
		c := newClient(t, config)
		endpoints, err := c.endpoints(t.Context(), test.host)
		if err != nil {
			t.Fatal(err)
		}
		e := endpoints[0]
		if got := strings.Join(e.schemes, " "); got != test.schemes || e.transport.TLSClientConfig.InsecureSkipVerify != (len(e.schemes) > 1) {
			t.Errorf("%s with %q listed: %s, verified %v", test.host, test.list, got, !e.transport.TLSClientConfig.InsecureSkipVerify)
		}
	}
	// What a name server says of a name makes it insecure only where it was listed.
	c := newClient(t, Config{Insecure: []string{"127.0.0.0/8", "::1/128"}})
	list := c.policy.Load().insecure
	if !list.Resolves(t.Context(), "localhost:1") || list.Resolves(t.Context(), "no.such.name.invalid") {
		t.Error("the addresses of names")
	}
}

// A registry that speaks HTTP is not spoken to in HTTP unless it is listed.
func TestPlainNeedsToBeListed(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	front := faulty.Start(t, faulty.Options{Registry: reg})
	c := newClient(t, Config{})
	dialTo(t, c, name, front.Host)
	_, err := at(c, name, "a/b").Tags(t.Context())
	if want := "server gave HTTP response to HTTPS client: list " + name + " in insecure-registries to allow HTTP"; !errors.Is(err, fault.Unavailable) || !strings.HasSuffix(fmt.Sprint(err), want) {
		t.Errorf("%v, want %s", err, want)
	}
	if n := front.Count(everything); n != 0 {
		t.Errorf("%d requests in the clear", n)
	}
	c = newClient(t, Config{AllowHTTP: "permit HOST"})
	dialTo(t, c, name, front.Host)
	if _, err := at(c, name, "a/b").Tags(t.Context()); !strings.HasSuffix(fmt.Sprint(err), "HTTPS client: permit "+name) {
		t.Error(err)
	}
	c = newClient(t, Config{Insecure: []string{name}})
	dialTo(t, c, name, front.Host)
	if _, err := at(c, name, "a/b").Tags(t.Context()); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	// One that speaks HTTPS and fails is not taken for one that speaks HTTP.
	tls := registry.Start(t, registry.Options{TLS: true})
	c = newClient(t, Config{Insecure: []string{name}})
	e := dialTo(t, c, name, tls.Host)[0]
	e.transport.TLSClientConfig.InsecureSkipVerify = false
	if _, err := at(c, name, "a/b").Tags(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
}

// The scheme is found out again when a registry that spoke HTTP speaks HTTPS.
func TestSchemeChanges(t *testing.T) {
	plain, secure := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{TLS: true})
	pushImage(t, at(newClient(t, Config{}), plain.Host, "a/b"), "one", nil)
	pushImage(t, at(newClient(t, Config{}), secure.Host, "a/b"), "two", nil)
	c := newClient(t, Config{Insecure: []string{name}})
	for i, host := range []string{plain.Host, secure.Host, plain.Host} {
		for _, e := range dialTo(t, c, name, host) {
			e.transport.CloseIdleConnections()
		}
		if _, err := at(c, name, "a/b").Resolve(t.Context(), []string{"one", "two", "one"}[i]); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

func TestNoSuchDirectory(t *testing.T) {
	c := newClient(t, Config{HostsDir: "/no/such/directory"})
	if e, err := c.endpoints(t.Context(), name); err != nil || len(e) != 1 {
		t.Errorf("%v %v", e, err)
	}
}

// Of mirrors that send wrong bytes the next is asked, at last the registry: for
// tags, manifests and small blobs alike.
func TestMirrorThatLies(t *testing.T) {
	origin := registry.Start(t, registry.Options{})
	own := at(newClient(t, Config{}), origin.Host, "a/b")
	config := pushBytes(t, own, "application/x", random(1000))
	image := pushImage(t, own, "v1", nil, config)
	mirror := faulty.Start(t, faulty.Options{Registry: origin})
	manifests := func(q *faulty.Request) bool { return strings.Contains(q.Path, "/manifests/") }
	wrong := "sha256:" + strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		match func(*faulty.Request) bool
		fault faulty.Fault
	}{
		"other bytes":       {manifests, faulty.Fault{Corrupt: true, CorruptAt: 40}},
		"another digest":    {manifests, faulty.Fault{Header: http.Header{"Docker-Content-Digest": {wrong}}}},
		"no manifest":       {manifests, faulty.Fault{Status: 200, Body: "<html>log in here</html>"}},
		"the blob is wrong": {faulty.Blobs(), faulty.Fault{Corrupt: true, CorruptAt: 40}},
	} {
		mirror.Forget()
		mirror.On(faulty.Always(test.match, test.fault))
		dir := hostsDir(t, t.TempDir(), origin.Host, hostsToml(`[host."`+mirror.URL+`"]`))
		r := at(newClient(t, Config{HostsDir: dir}), origin.Host, "a/b")
		if d, err := r.Resolve(t.Context(), "v1"); err != nil || d.Digest != image.Digest {
			t.Errorf("%s: the tag is %s, %v", name, d.Digest, err)
		}
		if d, _, err := r.Manifest(t.Context(), image.Digest.String()); err != nil || d.Digest != image.Digest {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if data, err := r.ReadBlob(t.Context(), config, 1<<20); err != nil || int64(len(data)) != config.Size {
			t.Errorf("%s: the blob has %d bytes, %v", name, len(data), err)
		}
		if mirror.Count(test.match) == 0 {
			t.Errorf("%s: the mirror was not asked", name)
		}
	}
}

// A reload counts for who is known already too.
func TestReload(t *testing.T) {
	c := newClient(t, Config{})
	schemes := func(domain string) (list []string) {
		endpoints, err := c.endpoints(t.Context(), domain)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range endpoints {
			list = append(list, strings.Join(e.schemes, "+"))
		}
		return list
	}
	if got := strings.Join(schemes("reg.example"), " ") + ", " + strings.Join(schemes("docker.io"), " "); got != "https, https" {
		t.Fatal(got)
	}
	c.pace.told = &atomic.Int64{}
	if err := c.Reload(Config{Insecure: []string{"reg.example"}, Mirrors: []string{"http://mirror.example"}, Attempts: 9}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(schemes("reg.example"), " ") + ", " + strings.Join(schemes("docker.io"), " "); got != "https+http, http https" || c.pace.limit() != 9 {
		t.Errorf("%s, %d attempts", got, c.pace.limit())
	}
	if err := c.Reload(Config{Insecure: []string{"a b"}}); !errors.Is(err, fault.Invalid) || c.pace.limit() != 9 || len(schemes("docker.io")) != 2 {
		t.Errorf("after a bad one: %v, %d attempts, %s", err, c.pace.limit(), schemes("docker.io"))
	}
}
