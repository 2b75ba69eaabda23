package upstream

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/manifest"
	"github.com/tarehq/tare/registry/pattern"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/bucket"
	"github.com/tarehq/tare/registry/storage/dir"
	"github.com/tarehq/tare/registry/storage/storagetest"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	foreign "github.com/tarehq/tare/test/registry"
	"github.com/tarehq/tare/test/s3"
)

func TestMain(m *testing.M) {
	code := m.Run()
	images.Clean()
	os.Exit(code)
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%v instead of an error of the kind %v", err, kind)
	}
}

// await polls until a condition holds.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// cache is a registry with copies, and a client of it.
type cache struct {
	*Storage
	root   string
	host   string
	client *remote.Client
	server *httptest.Server
}

// start runs a registry over the upstreams in the directory.
func start(t *testing.T, root string, change func(*Storage), ups ...Upstream) *cache {
	t.Helper()
	inner, err := dir.Open(root)
	ok(t, err)
	c := startOn(t, inner, change, ups...)
	c.root = root
	return c
}

// startOn runs a registry over the upstreams in the storage.
func startOn(t *testing.T, inner storage.Storage, change func(*Storage), ups ...Upstream) *cache {
	t.Helper()
	s, err := New(Config{Storage: inner, Upstreams: ups, Spool: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ok(t, err)
	s.pace.down = 0 // tests do not wait for an upstream to be asked again
	if change != nil {
		change(s)
	}
	server := httptest.NewServer(registry.New(registry.Config{Storage: s, Names: s.Names}))
	client, err := remote.New(remote.Config{Attempts: 1})
	ok(t, err)
	c := &cache{Storage: s, host: strings.TrimPrefix(server.URL, "http://"), client: client, server: server}
	t.Cleanup(func() { c.stop(t) })
	return c
}

func (c *cache) stop(t *testing.T) {
	if c.server == nil {
		return
	}
	c.server.CloseClientConnections()
	c.server.Close()
	c.server = nil
	ok(t, c.client.Close())
	ok(t, c.Close())
}

func (c *cache) repo(path string) *remote.Repository {
	return c.client.Repository(reference.Ref{Domain: c.host, Path: path}, remote.Credentials{})
}

// pull reads all of an image, and checks it.
func (c *cache) pull(t *testing.T, path, name string) (ocispec.Descriptor, storage.Manifest) {
	t.Helper()
	r := c.repo(path)
	d, err := r.Resolve(t.Context(), name)
	ok(t, err)
	got, data, err := r.Manifest(t.Context(), d.Digest.String())
	ok(t, err)
	m, err := manifest.Read(got.MediaType, digest.SHA256, data)
	ok(t, err)
	for _, b := range m.Blobs {
		c.blob(t, path, b)
	}
	return got, m
}

func (c *cache) blob(t *testing.T, path string, d ocispec.Descriptor) {
	t.Helper()
	_, err := c.repo(path).ReadBlob(t.Context(), d, 1<<30)
	ok(t, err)
}

// get asks for a path as it is.
func (c *cache) get(t *testing.T, method, path string, header http.Header) (*http.Response, []byte, error) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, c.server.URL+path, nil)
	ok(t, err)
	q.Header = header
	r, err := http.DefaultClient.Do(q)
	ok(t, err)
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	return r, data, err
}

func up(prefix, url string) Upstream {
	return Upstream{Name: prefix, URL: url, Prefix: prefix, Namespaces: []string{prefix + ".example"}}
}

// origin is an upstream with an image, and what stands before it.
func origin(t *testing.T, spec images.Spec) (*foreign.Registry, *faulty.Proxy, *images.Image) {
	t.Helper()
	r := foreign.Start(t, foreign.Options{})
	img := images.Make(t, spec)
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/team/app:v1")
	return r, faulty.Start(t, faulty.Options{Registry: r}), img
}

func secret(user, password string) func() (remote.Credentials, error) {
	return func() (remote.Credentials, error) { return remote.Credentials{Username: user, Password: password}, nil }
}

// TestKinds pulls through from upstreams of every kind, several in one registry.
func TestKinds(t *testing.T) {
	t.Parallel()
	rights := &foreign.Rights{Passwords: map[string]string{"ann": "secret"}, Access: map[string]map[string][]string{"ann": {"**": {"*"}}}}
	kinds := map[string]foreign.Options{
		"plain": {}, "tls": {TLS: true}, "basic": {TLS: true, Htpasswd: map[string]string{"ann": "secret"}}, "token": {TLS: true, Token: rights},
	}
	var ups []Upstream
	img := images.Make(t, images.Spec{Layers: 2})
	for name, o := range kinds {
		r := foreign.Start(t, o)
		images.Copy(t, img.Ref(), "docker://"+r.Host+"/team/app:v1", "--dest-creds=ann:secret")
		u := up("mirror/"+name, r.URL)
		u.CA, u.Credentials = r.CA, secret("ann", "secret")
		if name == "plain" || name == "tls" {
			u.Credentials = nil
		}
		ups = append(ups, u)
	}
	c := start(t, t.TempDir(), nil, ups...)
	for name := range kinds {
		if d, _ := c.pull(t, "mirror/"+name+"/team/app", "v1"); d.Digest != img.Manifest.Digest {
			t.Errorf("%s: %s instead of %s", name, d.Digest, img.Manifest.Digest)
		}
	}
}

// TestWrongCredentials are not those of the client.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	r := foreign.Start(t, foreign.Options{Htpasswd: map[string]string{"ann": "secret"}})
	img := images.Make(t, images.Spec{})
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/team/app:v1", "--dest-creds=ann:secret")
	password := "secret"
	u := up("up", r.URL)
	u.Credentials = func() (remote.Credentials, error) {
		return remote.Credentials{Username: "ann", Password: password}, nil
	}
	c := start(t, t.TempDir(), nil, u)
	c.pull(t, "up/team/app", "v1")
	password = "wrong"
	_, err := c.repo("up/team/app").Resolve(t.Context(), "v2")
	is(t, err, fault.Forbidden)
	// What is here serves.
	if d, _ := c.pull(t, "up/team/app", "v1"); d.Digest != img.Manifest.Digest {
		t.Error("another image")
	}
}

// TestRequests counts what upstream is asked.
func TestRequests(t *testing.T) {
	t.Parallel()
	_, p, img := origin(t, images.Spec{Layers: 3})
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	_, m := c.pull(t, "up/team/app", "v1")
	for _, b := range m.Blobs {
		if n := p.Count(faulty.Blobs(b.Digest.String())); n != 1 {
			t.Errorf("blob %s was fetched %d times", b.Digest, n)
		}
	}
	p.Forget()
	c.pull(t, "up/team/app", "v1")
	all := p.Requests(nil)
	if len(all) != 1 || all[0].Method != http.MethodHead {
		t.Errorf("a tag that has not changed costs %v", all)
	}
	p.Forget()
	c.pull(t, "up/team/app", img.Manifest.Digest.String())
	if n := p.Count(nil); n != 0 {
		t.Errorf("a digest that is here costs %d requests", n)
	}
	c.stop(t)
	again := start(t, c.root, nil, Upstream{Name: "up", URL: p.URL, Prefix: "up", TagTTL: time.Hour})
	again.pull(t, "up/team/app", "v1") // after a start it is asked for once
	p.Forget()
	again.pull(t, "up/team/app", "v1")
	if n := p.Count(nil); n != 0 {
		t.Errorf("a tag that is known costs %d requests", n)
	}
}

// TestTags follows a tag as it moves and goes.
func TestTags(t *testing.T) {
	t.Parallel()
	r, p, img := origin(t, images.Spec{})
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	c.pull(t, "up/team/app", "v1")
	second := images.Make(t, images.Spec{Seed: 7})
	images.Copy(t, second.Ref(), "docker://"+r.Host+"/team/app:v1")
	if d, _ := c.pull(t, "up/team/app", "v1"); d.Digest != second.Manifest.Digest {
		t.Errorf("%s after the tag moved to %s", d.Digest, second.Manifest.Digest)
	}
	for name, f := range map[string]faulty.Fault{
		"unavailable": {Status: 503}, "too many": {Status: 429}, "forbidden": {Status: 403}, "unauthorized": {Status: 401}, "broken": {Swallow: true},
	} {
		p.On(faulty.Always(faulty.Path(http.MethodHead, "/manifests/"), f))
		if name != "unavailable" && name != "too many" {
			p.On(faulty.Always(func(*faulty.Request) bool { return true }, f))
		}
		answer, _, err := c.get(t, http.MethodGet, "/v2/up/team/app/manifests/v1", nil)
		ok(t, err)
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Docker-Content-Digest") != second.Manifest.Digest.String() || answer.Header.Get("Warning") == "" {
			t.Errorf("%s: %s %v", name, answer.Status, answer.Header)
		}
	}
	p.On(nil)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, r.URL+"/v2/team/app/manifests/"+second.Manifest.Digest.String(), nil)
	ok(t, err)
	res, err := http.DefaultClient.Do(request)
	ok(t, err)
	res.Body.Close()
	_, err = c.repo("up/team/app").Resolve(t.Context(), "v1")
	is(t, err, fault.NotFound)
	_, err = c.Storage.Storage.Tag(t.Context(), "up/team/app", "v1")
	is(t, err, fault.NotFound)
	ok(t, r.Down())
	if d, _ := c.pull(t, "up/team/app", img.Manifest.Digest.String()); d.Digest != img.Manifest.Digest {
		t.Error("another image")
	}
	answer, body, err := c.get(t, http.MethodGet, "/v2/up/team/app/manifests/v9", nil)
	ok(t, err)
	if answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "upstream up") {
		t.Errorf("%s: %s", answer.Status, body)
	}
}

// TestSlow has an upstream that does not answer in time.
func TestSlow(t *testing.T) {
	t.Parallel()
	_, p, img := origin(t, images.Spec{})
	c := start(t, t.TempDir(), func(s *Storage) { s.pace.revalidate, s.pace.down = 50*time.Millisecond, time.Hour }, up("up", p.URL))
	c.pull(t, "up/team/app", "v1")
	hold := make(chan struct{})
	p.On(faulty.Always(faulty.Path(http.MethodHead, "/manifests/"), faulty.Fault{Wait: hold}))
	for range 3 { // of which the first waits
		tag, err := c.Tag(t.Context(), "up/team/app", "v1")
		ok(t, err)
		if !tag.Stale || tag.Target.Digest != img.Manifest.Digest {
			t.Errorf("%+v", tag)
		}
	}
	close(hold)
	await(t, "the request that went on", func() bool {
		tag, err := c.Tag(t.Context(), "up/team/app", "v1")
		ok(t, err)
		return !tag.Stale
	})
}

// TestNames has clients that know prefixes, and those that say ns=.
func TestNames(t *testing.T) {
	t.Parallel()
	_, p, img := origin(t, images.Spec{})
	u := up("up", p.URL)
	u.Repositories = pattern.List{pattern.MustParse("team/*")}
	c := start(t, t.TempDir(), nil, u)
	for path, status := range map[string]int{
		"/v2/up/team/app/manifests/v1":                    200,
		"/v2/team/app/manifests/v1?ns=up.example":         200,
		"/v2/team/app/manifests/v1?ns=other.example":      404,
		"/v2/team/app/manifests/v1":                       404,
		"/v2/up/team/app/manifests/v2":                    404,
		"/v2/up/other/app/manifests/v1":                   404,
		"/v2/../team/app/manifests/v1?ns=up.example":      400,
		"/v2/team/app/../../x/manifests/v1?ns=up.example": 400,
	} {
		answer, body, err := c.get(t, http.MethodGet, path, nil)
		ok(t, err)
		if answer.StatusCode != status {
			t.Errorf("%s: %s %.200s", path, answer.Status, body)
		}
	}
	if n := p.Count(func(r *faulty.Request) bool { return strings.Contains(r.Path, "other/") }); n != 0 {
		t.Errorf("upstream was asked %d times for what may not be asked for", n)
	}
	answer, body, err := c.get(t, http.MethodGet, "/v2/team/app/tags/list?ns=up.example&n=0", nil)
	ok(t, err)
	if answer.StatusCode != 200 {
		t.Errorf("%s %s", answer.Status, body)
	}
	answer, body, err = c.get(t, http.MethodPost, "/v2/up/team/app/blobs/uploads/", nil)
	ok(t, err)
	if answer.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "is a copy of team/app") {
		t.Errorf("%s: %s", answer.Status, body)
	}
	pushed := storagetest.PushImage(t, c, "own/app", 1, "v1")
	if d, _ := c.pull(t, "own/app", "v1"); d.Digest != pushed.Descriptor.Digest || d.Digest == img.Manifest.Digest {
		t.Error("what was pushed is not what is pulled")
	}
}

// TestWhole is the mirror of clients that know no prefix.
func TestWhole(t *testing.T) {
	t.Parallel()
	_, p, img := origin(t, images.Spec{})
	c := start(t, t.TempDir(), nil, Upstream{Name: "all", URL: p.URL, Prefix: "/"})
	if d, _ := c.pull(t, "team/app", "v1"); d.Digest != img.Manifest.Digest {
		t.Error("another image")
	}
	_, err := c.CreateUpload(t.Context(), "own/app", digest.SHA256)
	is(t, err, fault.Forbidden)
}

// TestKept collects beside a pull that has not come to its end.
func TestKept(t *testing.T) {
	t.Parallel()
	_, p, img := origin(t, images.Spec{Layers: 3})
	u := up("up", p.URL)
	u.Unused = time.Hour
	c := start(t, t.TempDir(), nil, u)
	r := c.repo("up/team/app")
	_, data, err := r.Manifest(t.Context(), "v1")
	ok(t, err)
	m, err := manifest.Read("", digest.SHA256, data)
	ok(t, err)
	here := func(d digest.Digest) bool {
		b, err := c.Storage.Storage.Blob(t.Context(), "up/team/app", d)
		if err == nil {
			b.Content.Close()
		}
		return err == nil
	}
	kept := func(want int) {
		t.Helper()
		await(t, fmt.Sprintf("%d blobs are kept", want), func() bool {
			got, err := c.Storage.Storage.Manifest(t.Context(), "up/team/app", img.Manifest.Digest)
			ok(t, err)
			return len(got.Blobs) == want
		})
	}
	for i, b := range m.Blobs[:2] {
		c.blob(t, "up/team/app", b)
		kept(i + 1)
	}
	_, err = c.Collect(t.Context(), 0)
	ok(t, err)
	if !here(m.Blobs[0].Digest) || !here(m.Blobs[1].Digest) {
		t.Error("a collection has taken what a cached manifest names")
	}
	// After a restart nothing is known of what lacks what.
	c.stop(t)
	c = start(t, c.root, nil, u)
	c.blob(t, "up/team/app", m.Blobs[2])
	c.pull(t, "up/team/app", "v1")
	kept(4)
	ok(t, c.expire(t.Context(), time.Now().Add(30*time.Minute)))
	kept(4)
	ok(t, c.expire(t.Context(), time.Now().Add(2*time.Hour)))
	_, err = c.Collect(t.Context(), 0)
	ok(t, err)
	repos, err := c.Repositories(t.Context(), "", -1)
	ok(t, err)
	if len(repos) != 0 {
		t.Errorf("%v after all has expired", repos)
	}
}

// TestLists has tags and referrers of upstream, and of here while that is down.
func TestLists(t *testing.T) {
	t.Parallel()
	r, p, img := origin(t, images.Spec{})
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/team/app:a")
	c := start(t, t.TempDir(), nil, up("up", p.URL))
	c.pull(t, "up/team/app", "v1")
	tags := func(last string, n int) string {
		list, err := c.Tags(t.Context(), "up/team/app", last, n)
		ok(t, err)
		return strings.Join(list, " ")
	}
	if tags("", -1) != "a v1" || tags("", 1) != "a" || tags("a", -1) != "v1" || tags("v1", -1) != "" {
		t.Errorf("%q %q %q %q", tags("", -1), tags("", 1), tags("a", -1), tags("v1", -1))
	}
	answer, _, err := c.get(t, http.MethodGet, "/v2/team/app/tags/list?n=1&ns=up.example", nil)
	ok(t, err)
	if link := answer.Header.Get("Link"); !strings.Contains(link, "ns=up.example") || !strings.Contains(link, "last=a") {
		t.Errorf("the next page of a mirror is at %q", link)
	}
	ok(t, r.Down())
	if tags("", -1) != "v1" {
		t.Errorf("%q while upstream is down", tags("", -1))
	}
	_, err = c.Tags(t.Context(), "up/no/such", "", -1)
	is(t, err, fault.Unavailable)
}

// TestReferrers has an upstream that knows the API for them.
func TestReferrers(t *testing.T) {
	t.Parallel()
	far, err := dir.Open(t.TempDir())
	ok(t, err)
	t.Cleanup(func() { ok(t, far.Close()) })
	image := storagetest.PushImage(t, far, "team/app", 1, "v1")
	config := storagetest.Push(t, far, "team/app", []byte("{}"))
	signature := storagetest.Artifact(image.Descriptor, "application/x-signature", config)
	ok(t, far.PutManifest(t.Context(), "team/app", signature))
	server := httptest.NewServer(registry.New(registry.Config{Storage: far}))
	defer server.Close()
	c := start(t, t.TempDir(), nil, up("up", server.URL))
	list, err := c.repo("up/team/app").Referrers(t.Context(), image.Descriptor.Digest)
	ok(t, err)
	if len(list) != 1 || list[0].Digest != signature.Descriptor.Digest || list[0].ArtifactType != "application/x-signature" {
		t.Errorf("%+v", list)
	}
	c.pull(t, "up/team/app", signature.Descriptor.Digest.String())
	server.CloseClientConnections()
	server.Close()
	list, err = c.Referrers(t.Context(), "up/team/app", image.Descriptor.Digest, "", -1)
	ok(t, err)
	if len(list) != 1 || list[0].Digest != signature.Descriptor.Digest {
		t.Errorf("%+v while upstream is down", list)
	}
}

// TestUsed has what is asked for count as used, so that it does not expire.
func TestUsed(t *testing.T) {
	t.Parallel()
	_, p, img := origin(t, images.Spec{})
	u := up("up", p.URL)
	u.Unused = time.Hour
	c := start(t, t.TempDir(), func(s *Storage) { s.pace.touch = 0 }, u)
	c.pull(t, "up/team/app", "v1")
	updated := func() time.Time {
		m, err := c.Storage.Storage.Manifest(t.Context(), "up/team/app", img.Manifest.Digest)
		ok(t, err)
		return m.Updated
	}
	await(t, "all blobs", func() bool {
		m, err := c.Storage.Storage.Manifest(t.Context(), "up/team/app", img.Manifest.Digest)
		ok(t, err)
		return len(m.Blobs) == 2
	})
	before := updated()
	c.pull(t, "up/team/app", img.Manifest.Digest.String())
	await(t, "the use", func() bool { return updated().After(before) })
}

// TestBucket keeps copies in a bucket.
func TestBucket(t *testing.T) {
	t.Parallel()
	server := s3.Start(t, "registry")
	inner, err := bucket.Open(t.Context(), bucket.Config{Endpoint: server.Host, Bucket: "registry", Region: "us-east-1",
		AccessKey: s3.AccessKey, SecretKey: s3.SecretKey, Insecure: true, PathStyle: true, Spool: t.TempDir()})
	ok(t, err)
	_, p, img := origin(t, images.Spec{Layers: 2, Size: 300_000})
	u := up("up", p.URL)
	u.Unused = time.Hour
	c := startOn(t, inner, nil, u)
	c.pull(t, "up/team/app", "v1")
	await(t, "all blobs", func() bool {
		m, err := inner.Manifest(t.Context(), "up/team/app", img.Manifest.Digest)
		ok(t, err)
		return len(m.Blobs) == 3
	})
	_, err = c.Collect(t.Context(), 0)
	ok(t, err)
	p.Forget()
	c.pull(t, "up/team/app", "v1")
	if n := p.Count(nil); n != 1 {
		t.Errorf("what is in the bucket costs %d requests", n)
	}
	storagetest.Whole(t, inner, "up/team/app", img.Manifest.Digest)
	ok(t, c.expire(t.Context(), time.Now().Add(2*time.Hour)))
	_, err = inner.Manifest(t.Context(), "up/team/app", img.Manifest.Digest)
	is(t, err, fault.NotFound)
}

// TestHostile has an upstream whose manifests are not what was asked for.
func TestHostile(t *testing.T) {
	t.Parallel()
	_, p, img := origin(t, images.Spec{Size: 100_000})
	d := img.Manifest.Digest
	c := start(t, t.TempDir(), func(s *Storage) { s.config.MaxBlob = 1000 }, up("up", p.URL))
	ask := func(item string) int {
		t.Helper()
		answer, _, err := c.get(t, http.MethodGet, "/v2/up/team/app/"+item, nil)
		ok(t, err)
		return answer.StatusCode
	}
	head := func(name, value string) faulty.Fault { return faulty.Fault{Header: http.Header{name: {value}}} }
	for name, f := range map[string]faulty.Fault{
		"bytes": {Corrupt: true, CorruptAt: 20}, "type": head("Content-Type", ocispec.MediaTypeImageIndex), "no type": head("Content-Type", "text/plain"),
		"body": {Status: 200, Body: `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`}, "large": {Endless: ' '},
	} {
		p.On(faulty.Always(faulty.Path(http.MethodGet, "/manifests/"), f))
		want := http.StatusServiceUnavailable
		if name == "no type" {
			want = http.StatusOK // the document says it
		}
		if status := ask("manifests/" + d.String()); status != want {
			t.Errorf("%s: status %d", name, status)
		}
		if want == http.StatusOK {
			ok(t, c.DeleteManifest(t.Context(), "up/team/app", d, nil))
		}
	}
	// A tag that leads to a digest that is not there, or to none.
	for name, f := range map[string]faulty.Fault{
		"another": head("Docker-Content-Digest", digest.FromString("x").String()), "none": head("Docker-Content-Digest", "sha256:../../x"),
	} {
		p.On(faulty.Always(faulty.Path(http.MethodHead, "/manifests/"), f))
		status := ask("manifests/v1")
		if name == "another" && status == http.StatusOK || name == "none" && status != http.StatusOK { // the body tells the digest then
			t.Errorf("%s digest: status %d", name, status)
		}
	}
	p.On(nil)
	if status := ask("blobs/" + img.Layers[0].Digest.String()); status != http.StatusForbidden {
		t.Errorf("a blob over the limit: status %d", status)
	}
	if n := p.Count(faulty.Blobs()); n != 0 {
		t.Errorf("%d blobs over the limit were fetched", n)
	}
}

// TestOwn has clients that call the registry by its own name.
func TestOwn(t *testing.T) {
	t.Parallel()
	c := start(t, t.TempDir(), func(s *Storage) { s.config.Own = []string{"images.example"} }, up("up", "https://registry.example"),
		Upstream{Name: "other", URL: "https://other.example", Namespaces: []string{"other.example"}})
	for ns, want := range map[string]string{"images.example": "a/b", "up.example": "up/a/b", "other.example": "", "": ""} {
		name, known := c.Names("a/b", ns)
		if known != (want != "") || known && name != want {
			t.Errorf("%q: %q %v", ns, name, known)
		}
	}
}
