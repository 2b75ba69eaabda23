package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/registry"
)

// hurried is a pace for tests: short pauses, and patience where a slow machine
// needs it.
var hurried = pace{
	dial: 20 * time.Second, handshake: 20 * time.Second, answer: 30 * time.Second, commit: 30 * time.Second, stall: 30 * time.Second,
	backOff: time.Millisecond, maxBackOff: 5 * time.Millisecond, maxRetryAfter: 2 * time.Second, attempts: 5,
	remember: time.Hour, down: time.Hour,
}

func newClient(t *testing.T, config Config) *Client {
	t.Helper()
	config.UserAgent = "tare-test"
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	c.pace = hurried
	t.Cleanup(func() { c.Close() })
	return c
}

func at(c *Client, host, path string, cred ...Credentials) *Repository {
	return c.Repository(reference.Ref{Domain: host, Path: path}, append(cred, Credentials{})[0])
}

// random makes bytes that no two tests share.
func random(n int) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	data := make([]byte, n)
	rand.NewChaCha8(seed).Read(data)
	return data
}

func describeBytes(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// opener gives the bytes as PushBlob wants them.
func opener(data []byte) func(int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[offset:])), nil }
}

func pushBytes(t *testing.T, r *Repository, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := describeBytes(mediaType, data)
	if err := r.PushBlob(t.Context(), d, opener(data), nil); err != nil {
		t.Fatal(err)
	}
	return d
}

// pushImage pushes a manifest over the layers and gives it.
func pushImage(t *testing.T, r *Repository, tag string, subject *ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: subject, Layers: layers,
		Config: pushBytes(t, r, ocispec.MediaTypeImageConfig, []byte(`{"os":"linux","architecture":"amd64"}`)), Annotations: map[string]string{"tag": tag},
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := describeBytes(m.MediaType, data)
	if tag == "" {
		tag = d.Digest.String()
	}
	if err := r.PushManifest(t.Context(), d, data, tag); err != nil {
		t.Fatal(err)
	}
	return d
}

func readBlob(r *Repository, d ocispec.Descriptor, from, to int64) ([]byte, error) {
	b, err := r.Blob(context.Background(), d, from, to)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}

// hostsDir makes a directory for a host with files of names and contents.
func hostsDir(t *testing.T, dir, host string, files map[string]string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, host, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func someRights() *registry.Rights {
	return &registry.Rights{
		Passwords: map[string]string{"ann": "secret", "bob": "hush"},
		Access:    map[string]map[string][]string{"ann": {"**": {"*"}}, "bob": {"pub/*": {"pull"}}, "": {"pub/*": {"pull"}}},
	}
}

// TestRoundTrip does all there is to do with each kind of registry.
func TestRoundTrip(t *testing.T) {
	for name, o := range map[string]registry.Options{
		"plain": {}, "tls": {TLS: true}, "htpasswd": {TLS: true, Htpasswd: map[string]string{"ann": "secret"}}, "token": {TLS: true, Token: someRights()},
	} {
		t.Run(name, func(t *testing.T) {
			reg := registry.Start(t, o)
			config := Config{Chunk: 100_000}
			if o.TLS {
				config.HostsDir = hostsDir(t, t.TempDir(), reg.Host, map[string]string{"ca.crt": fileText(t, reg.CA)})
			}
			if o.Token != nil { // a host of its own, with the registry's certificate
				hostsDir(t, config.HostsDir, strings.TrimSuffix(strings.TrimPrefix(reg.Tokens.Realm, "https://"), "/token"), map[string]string{"ca.crt": fileText(t, reg.CA)})
			}
			r := at(newClient(t, config), reg.Host, "pub/app", Credentials{Username: "ann", Password: "secret"})
			roundTrip(t, r, newClient(t, config))
		})
	}
}

func roundTrip(t *testing.T, r *Repository, other *Client) {
	small, large := random(999), random(1_234_567)
	for _, data := range [][]byte{small, large, {}} {
		d := describeBytes("application/x", data)
		if has, err := r.HasBlob(t.Context(), d.Digest); has || err != nil {
			t.Errorf("before the push: %v %v", has, err)
		}
		var done int64
		if err := r.PushBlob(t.Context(), d, opener(data), func(n int64) { done = n }); err != nil || done != d.Size {
			t.Fatalf("%v, %d of %d bytes", err, done, d.Size)
		}
		if has, err := r.HasBlob(t.Context(), d.Digest); !has || err != nil {
			t.Errorf("after the push: %v %v", has, err)
		}
		if got, err := readBlob(r, d, 0, -1); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes came back: %v", len(got), d.Size, err)
		}
	}
	layer := describeBytes("application/x", large)
	if got, err := readBlob(r, layer, 1000, 200_000); err != nil || !bytes.Equal(got, large[1000:200_000]) {
		t.Errorf("a range: %d bytes, %v", len(got), err)
	}
	image := pushImage(t, r, "v1", nil, layer)
	for _, ref := range []string{"v1", image.Digest.String()} {
		d, err := r.Resolve(t.Context(), ref)
		if err != nil || d.Digest != image.Digest || d.Size != image.Size || d.MediaType != image.MediaType {
			t.Errorf("%s resolves to %+v: %v", ref, d, err)
		}
		d, data, err := r.Manifest(t.Context(), ref)
		if err != nil || d.Digest != image.Digest || digest.FromBytes(data) != image.Digest {
			t.Errorf("the manifest %s: %+v %v", ref, d, err)
		}
	}
	for i := range 3 {
		pushImage(t, r, fmt.Sprintf("t%d", i), nil)
	}
	tags, err := r.Tags(t.Context())
	slices.Sort(tags)
	if err != nil || !slices.Equal(tags, []string{"t0", "t1", "t2", "v1"}) {
		t.Errorf("tags %v %v", tags, err)
	}
	// docker-registry has no API of referrers: the tag is kept by the client.
	if refs, err := r.Referrers(t.Context(), image.Digest); err != nil || len(refs) != 0 {
		t.Errorf("referrers of the new image: %v %v", refs, err)
	}
	first, second := pushImage(t, r, "", &image, layer), pushImage(t, r, "s2", &image)
	pushImage(t, r, "s2", &image)
	refs, err := r.Referrers(t.Context(), image.Digest)
	if err != nil || len(refs) != 2 || refs[0].Digest != first.Digest || refs[1].Digest != second.Digest ||
		refs[0].ArtifactType != ocispec.MediaTypeImageConfig || refs[1].Annotations["tag"] != "s2" {
		t.Errorf("referrers %+v %v", refs, err)
	}
	// Another client and another repository: nothing is known of both.
	mine := at(other, r.domain, "pub/fork", r.cred)
	if ok, err := mine.Mount(t.Context(), layer.Digest, r.path); !ok || err != nil {
		t.Errorf("mount: %v %v", ok, err)
	}
	if has, err := mine.HasBlob(t.Context(), layer.Digest); !has || err != nil {
		t.Errorf("the mounted blob: %v %v", has, err)
	}
	unknown := random(5000)
	if ok, err := mine.Mount(t.Context(), digest.FromBytes(unknown), r.path); ok || err != nil {
		t.Errorf("mount of what is not there: %v %v", ok, err)
	}
	pushBytes(t, mine, "application/x", unknown) // goes on with the upload that the mount opened
	if len(mine.kept) != 0 {
		t.Error("the upload of the mount was not used")
	}
}

func TestWhatIsNotThere(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	r := at(newClient(t, Config{}), reg.Host, "no/thing")
	for what, try := range map[string]func() error{
		"manifest unknown: manifest unknown": func() error { _, err := r.Resolve(t.Context(), "x"); return err },
		"manifest unknown":                   func() error { _, _, err := r.Manifest(t.Context(), digest.FromString("x").String()); return err },
		"name unknown":                       func() error { _, err := r.Tags(t.Context()); return err },
		"blob unknown": func() error {
			_, err := r.Blob(t.Context(), describeBytes("", []byte("x")), 0, -1)
			return err
		},
	} {
		if err := try(); !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s", err, what)
		}
	}
	for _, ref := range []string{"", "a/b", "../x", "sha256:12", "a b", strings.Repeat("a", 129)} {
		if _, err := r.Resolve(t.Context(), ref); !errors.Is(err, fault.Invalid) {
			t.Errorf("the reference %q: %v", ref, err)
		}
	}
}

func TestWrongAuthorityIsRefused(t *testing.T) {
	reg, other := registry.Start(t, registry.Options{TLS: true}), registry.Start(t, registry.Options{TLS: true})
	// On loopback any certificate will do, unless there is a CA for it.
	if _, err := at(newClient(t, Config{}), reg.Host, "a/b").Tags(t.Context()); !errors.Is(err, fault.NotFound) {
		t.Errorf("without a CA: %v", err)
	}
	dir := hostsDir(t, t.TempDir(), reg.Host, map[string]string{"ca.crt": fileText(t, other.CA)})
	_, err := at(newClient(t, Config{HostsDir: dir}), reg.Host, "a/b").Tags(t.Context())
	advice := ": put the certificate of its CA into " + filepath.Join(dir, reg.Host, "ca.crt")
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "certificate signed by unknown authority") || !strings.HasSuffix(err.Error(), advice) {
		t.Errorf("with another's CA: %v, want at the end %s", err, advice)
	}
	c := newClient(t, Config{HostsDir: dir, Insecure: []string{reg.Host}})
	if _, err := at(c, reg.Host, "a/b").Tags(t.Context()); !errors.Is(err, fault.NotFound) {
		t.Errorf("listed as insecure: %v", err)
	}
}

func TestTokensAreShared(t *testing.T) {
	reg := registry.Start(t, registry.Options{Token: someRights()})
	front := faulty.Start(t, faulty.Options{Registry: reg})
	ann := Credentials{Username: "ann", Password: "secret"}
	c := newClient(t, Config{})
	layer := pushBytes(t, at(newClient(t, Config{}), reg.Host, "pub/app", ann), "application/x", random(1000))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := readBlob(at(c, front.Host, "pub/app", ann), layer, 0, -1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := front.Count(func(r *faulty.Request) bool { return !r.Authorized() }); n != 1 {
		t.Errorf("%d requests without credentials, of which one would have told enough", n)
	}
	var pulls []registry.Asked
	for _, a := range reg.Tokens.Asked() {
		if slices.Equal(a.Scopes, []string{"repository:pub/app:pull"}) {
			pulls = append(pulls, a)
		}
	}
	if len(pulls) != 1 || pulls[0].User != "ann" || pulls[0].Method != http.MethodGet {
		t.Errorf("tokens for the pull: %+v", pulls)
	}
	// Somebody else's requests have their own.
	if _, err := readBlob(at(c, front.Host, "pub/app"), layer, 0, -1); err != nil {
		t.Error(err)
	}
	if err := at(c, front.Host, "pub/app", Credentials{Username: "bob", Password: "hush"}).PushBlob(t.Context(), describeBytes("", []byte("x")), opener([]byte("x")), nil); !errors.Is(err, fault.Unauthorized) {
		t.Errorf("a push without the right to: %v", err)
	}
	if _, err := at(c, front.Host, "pub/app", Credentials{Username: "bob", Password: "wrong"}).Tags(t.Context()); !errors.Is(err, fault.Unauthorized) {
		t.Errorf("a wrong password: %v", err)
	}
}

// A token that the registry does not take any more is replaced, once.
func TestStaleToken(t *testing.T) {
	reg := registry.Start(t, registry.Options{Token: someRights()})
	front := faulty.Start(t, faulty.Options{Registry: reg})
	c := newClient(t, Config{})
	r := at(c, front.Host, "pub/app", Credentials{Username: "ann", Password: "secret"})
	layer := pushBytes(t, r, "application/x", random(1000))
	if _, err := readBlob(r, layer, 0, -1); err != nil {
		t.Fatal(err)
	}
	before := len(reg.Tokens.Asked())
	challenge := fmt.Sprintf(`Bearer realm=%q,service=%q,scope="repository:pub/app:pull",error="invalid_token"`, reg.Tokens.Realm, reg.Tokens.Service)
	front.Forget()
	front.On(faulty.First(1, faulty.Blobs(), faulty.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {challenge}}}))
	if _, err := readBlob(r, layer, 0, -1); err != nil {
		t.Error(err)
	}
	if n := len(reg.Tokens.Asked()) - before; n != 1 {
		t.Errorf("%d new tokens", n)
	}
	front.Forget()
	front.On(faulty.Always(faulty.Blobs(), faulty.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {challenge}}}))
	if _, err := readBlob(r, layer, 0, -1); !errors.Is(err, fault.Unauthorized) || front.Count(faulty.Blobs()) != 2 {
		t.Errorf("%v after %d requests", err, front.Count(faulty.Blobs()))
	}
}

func TestLogin(t *testing.T) {
	tokens := registry.Start(t, registry.Options{TLS: true, Token: someRights()})
	passwords := registry.Start(t, registry.Options{TLS: true, Htpasswd: map[string]string{"ann": "secret"}})
	dir := hostsDir(t, t.TempDir(), tokens.Host, map[string]string{"ca.crt": fileText(t, tokens.CA)})
	// The token server has the registry's certificate.
	hostsDir(t, dir, strings.TrimPrefix(strings.TrimSuffix(tokens.Tokens.Realm, "/token"), "https://"), map[string]string{"ca.crt": fileText(t, tokens.CA)})
	hostsDir(t, dir, passwords.Host, map[string]string{"ca.crt": fileText(t, passwords.CA)})
	c := newClient(t, Config{HostsDir: dir})

	identity, err := c.Login(t.Context(), tokens.Host, Credentials{Username: "ann", Password: "secret"})
	if err != nil || identity == "" {
		t.Fatalf("%q %v", identity, err)
	}
	asked := tokens.Tokens.Asked()
	if a := asked[len(asked)-1]; !a.Offline || len(a.Scopes) != 0 || a.Service != tokens.Tokens.Service {
		t.Errorf("%+v", a)
	}
	pushBytes(t, at(c, tokens.Host, "own/app", Credentials{Username: "ann", IdentityToken: identity}), "application/x", random(100))
	asked = tokens.Tokens.Asked()
	if a := asked[len(asked)-1]; a.Grant != "refresh_token" || a.User != "ann" || a.Method != http.MethodPost {
		t.Errorf("%+v", a)
	}
	tokens.Tokens.Revoke()
	if _, err := c.Login(t.Context(), tokens.Host, Credentials{IdentityToken: identity}); !errors.Is(err, fault.Unauthorized) {
		t.Errorf("a revoked token: %v", err)
	}
	_, err = c.Login(t.Context(), tokens.Host, Credentials{Username: "ann", Password: "wrong"})
	if want := `Get "https://` + tokens.Host + `/v2/": unauthorized: `; !errors.Is(err, fault.Unauthorized) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}

	if identity, err := c.Login(t.Context(), "https://"+passwords.Host+"/v2/", Credentials{Username: "ann", Password: "secret"}); err != nil || identity != "" {
		t.Errorf("%q %v", identity, err)
	}
	_, err = c.Login(t.Context(), passwords.Host, Credentials{Username: "ann", Password: "wrong"})
	if want := "login attempt to https://" + passwords.Host + "/v2/ failed with status: 401 Unauthorized"; !errors.Is(err, fault.Unauthorized) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	_, err = at(c, passwords.Host, "a/b").Resolve(t.Context(), "x")
	if want := `Head "https://` + passwords.Host + `/v2/a/b/manifests/x": no basic auth credentials`; !errors.Is(err, fault.Unauthorized) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A server that only knows GET, one that only knows POST, and a token that is
// the client's own.
func TestTokenMethods(t *testing.T) {
	rights := someRights()
	rights.GetOnly = true
	reg := registry.Start(t, registry.Options{Token: rights})
	c := newClient(t, Config{})
	ann := Credentials{Username: "ann", Password: "secret"}
	pushBytes(t, at(c, reg.Host, "own/app", ann), "application/x", random(100))

	posting := registry.Start(t, registry.Options{Token: someRights()})
	front := faulty.Start(t, faulty.Options{Target: strings.TrimSuffix(posting.Tokens.Realm, "/token")})
	front.On(faulty.Always(faulty.Path(http.MethodGet, "/token"), faulty.Fault{Status: 405}))
	way := faulty.Start(t, faulty.Options{Registry: posting})
	way.On(func(r *faulty.Request) *faulty.Fault {
		if r.Authorized() {
			return nil
		}
		return &faulty.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {fmt.Sprintf("Bearer realm=%q, service=%q", front.URL+"/token", posting.Tokens.Service)}}}
	})
	pushBytes(t, at(c, way.Host, "own/app", ann), "application/x", random(100))
	asked := posting.Tokens.Asked()
	if a := asked[len(asked)-1]; a.Grant != "password" {
		t.Errorf("%+v", a)
	}
	// The token itself is passed on and nobody is asked for another.
	tags := at(c, way.Host, "own/app", Credentials{RegistryToken: "mine"})
	if _, err := tags.Tags(t.Context()); err == nil || len(posting.Tokens.Asked()) != len(asked) {
		t.Errorf("%v, %d token requests", err, len(posting.Tokens.Asked())-len(asked))
	}
	last := way.Requests(nil)
	if got := last[len(last)-1].Header.Get("Authorization"); got != "Bearer mine" {
		t.Errorf("sent %q", got)
	}
}
