package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

var ann = Credentials{Username: "ann", Password: "secret"}

// scripted is a repository of a registry over HTTPS that h is.
func scripted(t *testing.T, h http.HandlerFunc) *Repository {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	c := newClient(t, Config{})
	dialTo(t, c, name, s.Listener.Addr().String())[0].transport.TLSClientConfig.InsecureSkipVerify = true
	return at(c, name, "a/b", ann)
}

// witness is a server that notes what it is asked.
type witness struct {
	*httptest.Server
	mu  sync.Mutex
	got []*http.Request
}

func newWitness(t *testing.T, answer http.HandlerFunc) *witness {
	w := &witness{}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.got = append(w.got, r)
		w.mu.Unlock()
		answer(rw, r)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *witness) requests() []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got
}

func basicChallenge(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Authorization") == basic("ann", "secret") {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// What a registry over HTTPS says must not lead to HTTP, even on loopback.
func TestNoDowngrade(t *testing.T) {
	plain := newWitness(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"x"}`) })
	secret := plain.URL + "/x?X-Amz-Signature=hidden"
	for what, answer := range map[string]func(http.ResponseWriter){
		"realm": func(w http.ResponseWriter) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+secret+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"redirect": func(w http.ResponseWriter) { w.Header().Set("Location", secret); w.WriteHeader(307) },
		"location": func(w http.ResponseWriter) { w.Header().Set("Location", secret); w.WriteHeader(202) },
		"user in a URL": func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://hidden:hidden@127.0.0.1/")
			w.WriteHeader(302)
		},
		"scheme": func(w http.ResponseWriter) { w.Header().Set("Location", "file:///hidden"); w.WriteHeader(302) },
		"gopher": func(w http.ResponseWriter) { w.Header().Set("Location", "gopher://x/?hidden"); w.WriteHeader(307) },
		"link": func(w http.ResponseWriter) {
			w.Header().Set("Link", `<`+secret+`>; rel="next"`)
			io.WriteString(w, `{"tags":["a"]}`)
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Path != "/v2/" {
					answer(w)
				}
			})
			var err error
			switch what {
			case "location":
				err = r.PushBlob(t.Context(), describeBytes("", []byte("x")), opener([]byte("x")), nil)
			default:
				_, err = r.Tags(t.Context())
			}
			if err == nil || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if what == "realm" || what == "redirect" || what == "location" {
				if !errors.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "leads from HTTPS to "+plain.URL) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	if got := plain.requests(); len(got) != 0 {
		t.Errorf("%d requests came in the clear: %v", len(got), got[0].URL)
	}
}

// Credentials and the headers of hosts.toml stay with the registry.
func TestRedirectsCarryNothing(t *testing.T) {
	data := random(1000)
	elsewhere := newWitness(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
	home := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case basicChallenge(w, r), r.URL.Path == "/v2/":
		case strings.HasSuffix(r.URL.Path, "/blobs/moved"): // on the same registry
			http.Redirect(w, r, elsewhere.URL+"/data?sig=1", http.StatusFound)
		default:
			http.Redirect(w, r, "/v2/a/b/blobs/moved", http.StatusTemporaryRedirect)
		}
	})
	host := strings.TrimPrefix(home.URL, "http://")
	dir := hostsDir(t, t.TempDir(), host, hostsToml(`server = "`+home.URL+`"`, `[header]`, `x-secret = "1"`, `cookie = "a=b"`))
	r := at(newClient(t, Config{HostsDir: dir}), host, "a/b", ann)
	if got, err := readBlob(r, describeBytes("", data), 0, -1); err != nil || string(got) != string(data) {
		t.Fatalf("%d bytes %v", len(got), err)
	}
	got := elsewhere.requests()
	if len(got) != 1 || got[0].URL.RawQuery != "sig=1" {
		t.Fatalf("%d requests", len(got))
	}
	for name := range got[0].Header {
		if name != "User-Agent" {
			t.Errorf("the header %s went to another host", name)
		}
	}
	for i, q := range home.requests() {
		if q.Header.Get("X-Secret") != "1" || (q.Header.Get("Authorization") == "") != (i == 0) {
			t.Errorf("request %d to the registry: %v", i, q.Header)
		}
	}
}

// A 401 of another host asks in vain.
func TestChallengeOfAnotherHost(t *testing.T) {
	thief := newWitness(t, func(w http.ResponseWriter, r *http.Request) { basicChallenge(w, r) })
	home := newWitness(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL, http.StatusFound) })
	r := at(newClient(t, Config{}), strings.TrimPrefix(home.URL, "http://"), "a/b", ann)
	if _, err := r.Tags(t.Context()); !errors.Is(err, fault.Unauthorized) {
		t.Error(err)
	}
	for _, q := range append(thief.requests(), home.requests()...) {
		if q.Header.Get("Authorization") != "" {
			t.Errorf("%s%s got the password", q.Host, q.URL)
		}
	}
}

// A redirected request for a token does not take the password along.
func TestTokenRedirect(t *testing.T) {
	thief := newWitness(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"t"}`) })
	var auth *witness
	auth = newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL+"/t", http.StatusTemporaryRedirect)
	})
	home := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+auth.URL+`/t",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	c, host := newClient(t, Config{}), strings.TrimPrefix(home.URL, "http://")
	if _, err := at(c, host, "a/b", ann).Tags(t.Context()); !errors.Is(err, fault.Unauthorized) {
		t.Error(err)
	}
	if _, err := at(c, host, "a/b", Credentials{IdentityToken: "hidden"}).Tags(t.Context()); !errors.Is(err, fault.Forbidden) || strings.Contains(err.Error(), "hidden") {
		t.Error(err)
	}
	for _, q := range thief.requests() {
		if q.Method != http.MethodGet || q.Header.Get("Authorization") != "" {
			t.Errorf("%s %v", q.Method, q.Header)
		}
	}
}

// HTTP leads to HTTP only where that is allowed.
func TestPlainLeadsOnlyToListed(t *testing.T) {
	home := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			http.Redirect(w, r, "http://192.0.2.1/x", http.StatusFound)
		}
	})
	r := at(newClient(t, Config{}), strings.TrimPrefix(home.URL, "http://"), "a/b", ann)
	if _, err := r.Tags(t.Context()); !errors.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "list that host in insecure-registries") {
		t.Error(err)
	}
}

func TestRedirectLoop(t *testing.T) {
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/v2/" {
			http.Redirect(w, q, q.URL.Path, http.StatusFound)
		}
	})
	if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), "redirects more than 10 times") {
		t.Error(err)
	}
}

// An image may name addresses for its foreign layers, but not this machine's.
func TestForeignLayers(t *testing.T) {
	inside := newWitness(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") })
	tls := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") }))
	defer tls.Close()
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	d := describeBytes(ocispec.MediaTypeImageLayerGzip, []byte("x"))
	d.URLs = []string{inside.URL, tls.URL}
	if _, err := readBlob(r, d, 0, -1); !errors.Is(err, fault.NotFound) {
		t.Errorf("an ordinary layer: %v", err)
	}
	d.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	if _, err := readBlob(r, d, 0, -1); err == nil || !strings.Contains(err.Error(), "127.0.0.1 is an address of this machine or its networks") {
		t.Errorf("a foreign layer on loopback: %v", err)
	}
	if len(inside.requests()) != 0 {
		t.Error("a foreign layer was asked for in the clear")
	}
	for address, ok := range map[string]bool{"8.8.8.8:443": true, "[2606:4700::1]:443": true, "10.1.1.1:443": false, "169.254.169.254:443": false,
		"[::ffff:127.0.0.1]:443": false, "[fe80::1]:443": false, "[fd00::1]:443": false, "100.64.1.1:443": false, "0.0.0.0:443": false, "[::]:443": false} {
		if err := publicOnly("tcp", address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	// What the addresses have is taken.
	c := r.client
	c.publicTransport().DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, tls.Listener.Addr().String())
	}
	c.publicTransport().TLSClientConfig.InsecureSkipVerify = true
	if got, err := readBlob(r, d, 0, -1); err != nil || string(got) != "x" {
		t.Errorf("%q %v", got, err)
	}
}

// What a registry writes into an error is one bounded line.
func TestErrorTexts(t *testing.T) {
	for body, want := range map[string]struct {
		status int
		text   string
		kind   fault.Kind
	}{
		`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`:                            {404, "manifest unknown: manifest unknown", fault.NotFound},
		`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`:            {401, "denied: requested access to the resource is denied", fault.Forbidden},
		`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"x"}]}]}`: {401, "unauthorized: authentication required", fault.Unauthorized},
		`{"errors":[{"code":"A","message":"b"},{"code":"C","message":"d"}]}`:                               {400, "a: b; c: d", fault.Invalid},
		`{"errors":[{"code":"NAME_INVALID"}]}`:                                                             {400, "name invalid", fault.Invalid},
		`{"details":"incorrect username or password"}`:                                                     {401, "unauthorized: incorrect username or password", fault.Unauthorized},
		`{"message":"slow down"}`: {429, "toomanyrequests: slow down", fault.Unavailable},
		"{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[31m\\n\\u202eb\\u0000\"}]}": {409, "x: a[31m b", fault.Conflict},
		`<html>`: {405, "unexpected status from GET request to https://" + name + "/v2/a/b/tags/list: 405 Method Not Allowed", fault.NotImplemented},
		`{"errors":[{"code":"X","message":"` + strings.Repeat("é", 5000) + `"}]}`: {400, "x: " + strings.Repeat("é", 510) + "…", fault.Invalid},
		`{"errors":[` + strings.Repeat(`{"code":"X"},`, 9000) + `{"code":"X"}]}`:  {403, "unexpected status from GET request to https://" + name + "/v2/a/b/tags/list: 403 Forbidden", fault.Forbidden},
	} {
		r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/v2/" {
				w.WriteHeader(want.status)
				io.WriteString(w, body)
			}
		})
		_, err := r.Tags(t.Context())
		if err == nil || err.Error() != want.text || fault.KindOf(err) != want.kind {
			t.Errorf("%.80s: %v (%v), want %.100s", body, err, fault.KindOf(err), want.text)
		}
	}
}

func TestManifestIsChecked(t *testing.T) {
	const docker, oci = "application/vnd.docker.distribution.manifest.v2+json", ocispec.MediaTypeImageManifest
	index := `{"schemaVersion":2,"manifests":[]}`
	single := `{"schemaVersion":2,"config":{},"layers":[]}`
	for _, test := range []struct{ ref, body, contentType, digest, want, err string }{
		{"v1", single, oci, "", oci, ""},
		{"v1", single, oci + "; charset=utf-8", "", oci, ""},
		{"v1", single, "application/json", "", oci, ""},
		{"v1", index, "", "", ocispec.MediaTypeImageIndex, ""},
		{"v1", `{"mediaType":"` + docker + `","config":{},"layers":[]}`, "text/plain", "", docker, ""},
		{"v1", `{"mediaType":"application/vnd.x+json","blob":1}`, "application/vnd.x+json", "", "application/vnd.x+json", ""},
		{"v1", single, oci, digest.FromString(single).String(), oci, ""},
		{"v1", single, oci, digest.SHA512.FromString(single).String(), oci, ""},
		{digest.FromString(single).String(), single, oci, "sha256:nonsense", oci, ""},
		{digest.SHA512.FromString(single).String(), single, oci, "", oci, ""},
		{"v1", single, oci, digest.FromString("x").String(), "", "is another: its digest is"},
		{digest.FromString("x").String(), single, oci, "", "", "is another: its digest is"},
		{digest.FromString("x").String(), single, oci, digest.FromString(single).String(), "", "is another: its digest is"},
		{"v1", `{"mediaType":"` + docker + `","config":{},"layers":[]}`, oci, "", "", "calls itself"},
		{"v1", `{"manifests":[],"layers":[]}`, oci, "", "", "claims to be an index too"},
		{"v1", index, oci, "", "", "not of its type"},
		{"v1", single, ocispec.MediaTypeImageIndex, "", "", "not of its type"},
		{"v1", `{"schemaVersion":1,"fsLayers":[]}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", "", "", "schema 1"},
		{"v1", `{}`, "", "", "", "without a type"},
		{"v1", `[]`, oci, "", "", "no JSON object"},
		{"v1", single + strings.Repeat(" ", 4<<20), oci, "", "", "larger than 4194304 bytes"},
	} {
		r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", test.contentType)
			if test.digest != "" {
				w.Header().Set("Docker-Content-Digest", test.digest)
			}
			if q.Method == http.MethodHead {
				return // tells nothing
			}
			if len(test.body) > 4<<20 {
				http.NewResponseController(w).Flush() // without a length
			}
			io.WriteString(w, test.body)
		})
		d, data, err := r.Manifest(t.Context(), test.ref)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%.60s as %q: %+v %v, want %s", test.body, test.contentType, d, err, test.err)
			}
			continue
		}
		if err != nil || d.MediaType != test.want || d.Digest.Algorithm().FromBytes(data) != d.Digest || d.Size != int64(len(data)) {
			t.Errorf("%.60s as %q: %+v %v", test.body, test.contentType, d, err)
		}
		if again, err := r.Resolve(t.Context(), test.ref); err != nil || again.Digest != d.Digest || again.MediaType != d.MediaType {
			t.Errorf("%.60s resolves to %+v: %v", test.body, again, err)
		}
	}
}

func TestResolveByHead(t *testing.T) {
	d := digest.FromString("x")
	gets := 0
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/v2/" {
			return
		}
		if q.Method == http.MethodGet {
			gets++
		}
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Docker-Content-Digest", d.String())
		w.Header().Set("Content-Length", "77")
	})
	got, err := r.Resolve(t.Context(), "v1")
	if err != nil || got.Digest != d || got.Size != 77 || got.MediaType != ocispec.MediaTypeImageIndex || gets != 0 {
		t.Errorf("%+v %v after %d GET", got, err, gets)
	}
}

func TestPages(t *testing.T) {
	var link string
	pages := 0
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/v2/" {
			return
		}
		pages++
		switch last := q.URL.Query().Get("last"); {
		case link != "":
			w.Header().Set("Link", link)
		case last == "":
			w.Header().Set("Link", `<https://`+name+`/other>; rel=prev, </v2/a/b/tags/list?n=2&last=b>; title="a,b;c"; rel="x next"`)
		case last == "b":
			w.Header().Set("Link", `<?n=2&last=c>;rel=next`)
		}
		io.WriteString(w, `{"tags":["t`+q.URL.Query().Get("last")+`"]}`)
	})
	tags, err := r.Tags(t.Context())
	if err != nil || strings.Join(tags, " ") != "t tb tc" {
		t.Errorf("%q %v", tags, err)
	}
	for _, link = range []string{`<https://elsewhere.example/v2/a/b/tags/list>; rel="next"`, `</v2/a/b/tags/list?n=1000>; rel="next"`, `<http://` + name + `/v2/>; rel=next`} {
		if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), "which is refused") {
			t.Errorf("%s: %v", link, err)
		}
	}
}

func TestHostileLists(t *testing.T) {
	for body, want := range map[string]string{
		`{"tags":["a/b"]}`: `the tag "a/b", which is none`, `{"tags":["` + strings.Repeat("x", 129) + `"]}`: "which is none", `[`: "a list of tags that is none",
		`{"tags":["sha256:` + strings.Repeat("0", 64) + `"]}`: "which is none",
	} {
		r := scripted(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		if _, err := r.Tags(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v", body, err)
		}
	}
	for body, want := range map[string]string{
		`{"manifests":[{"digest":"sha256:x"}]}`: "which is no digest", `[`: "no index",
		`{"manifests":[` + strings.Repeat(`{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},`, 10_000) + `{}]}`: "more than 10000",
	} {
		r := scripted(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		if _, err := r.Referrers(t.Context(), digest.FromString("x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50s: %v", body, err)
		}
	}
}

// A registry with the API of referrers keeps them itself.
func TestReferrersAPI(t *testing.T) {
	subject := digest.FromString("subject")
	var puts []string
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.Method == http.MethodPut:
			puts = append(puts, q.URL.Path)
			w.Header().Set("OCI-Subject", subject.String())
			w.WriteHeader(http.StatusCreated)
		case q.URL.Path == "/v2/a/b/referrers/"+subject.String() && q.URL.RawQuery == "":
			w.Header().Set("Link", `<`+q.URL.Path+`?page=2>; rel="next"`)
			io.WriteString(w, `{"manifests":[{"digest":"`+digest.FromString("1").String()+`"}]}`)
		case q.URL.RawQuery == "page=2":
			io.WriteString(w, `{"manifests":[{"digest":"`+digest.FromString("2").String()+`","artifactType":"x/y"}]}`)
		}
	})
	refs, err := r.Referrers(t.Context(), subject)
	if err != nil || len(refs) != 2 || refs[1].ArtifactType != "x/y" {
		t.Errorf("%+v %v", refs, err)
	}
	data := []byte(`{"subject":{"digest":"` + subject.String() + `"}}`)
	d := describeBytes(ocispec.MediaTypeImageManifest, data)
	if err := r.PushManifest(t.Context(), d, data, d.Digest.String()); err != nil || len(puts) != 1 {
		t.Errorf("%v %v", err, puts)
	}
	if err := r.PushManifest(t.Context(), d, []byte("{}"), "x"); !errors.Is(err, fault.Invalid) {
		t.Errorf("other bytes than the descriptor's: %v", err)
	}
	if got := fallbackTag(digest.SHA512.FromString("x")); len(got) != len("sha512-")+64 {
		t.Error(got)
	}
}

// A registry that stores something else than was sent is not believed.
func TestPushedDigestIsChecked(t *testing.T) {
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Docker-Content-Digest", digest.FromString("another").String())
		w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
		w.WriteHeader(map[string]int{"GET": 200, "POST": 202, "PUT": 201, "DELETE": 204}[q.Method])
	})
	d := describeBytes(ocispec.MediaTypeImageManifest, []byte("{}"))
	if err := r.PushManifest(t.Context(), d, []byte("{}"), "x"); err == nil || !strings.Contains(err.Error(), "says to have stored") {
		t.Error(err)
	}
	if err := r.PushBlob(t.Context(), d, opener([]byte("{}")), nil); err == nil || !strings.Contains(err.Error(), "says to have stored") {
		t.Error(err)
	}
}

// A registry that does not know how to mount is not asked again, and is no
// failure.
func TestNoMount(t *testing.T) {
	r := scripted(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
	if ok, err := r.Mount(t.Context(), digest.FromString("x"), "c/d"); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
}

func TestTokenLife(t *testing.T) {
	for seconds, want := range map[float64]time.Duration{0: 45 * time.Second, -5: 45 * time.Second, 1: 45 * time.Second, 100: 75 * time.Second, 300: 270 * time.Second, 1e300: time.Hour - 30*time.Second} {
		if got := (tokenAnswer{ExpiresIn: seconds}).life(); got != want {
			t.Errorf("%v: %v, want %v", seconds, got, want)
		}
	}
}

// A token that has run out is replaced before the registry refuses it, and a
// refresh token that was changed is used from then on.
func TestTokensRunOut(t *testing.T) {
	var grants []string
	auth := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		grants = append(grants, r.FormValue("refresh_token"))
		fmt.Fprintf(w, `{"access_token":"t%d","refresh_token":"r%d"}`, len(grants), len(grants))
	})
	home := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+auth.URL+`",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, `{"tags":["`+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")+`"]}`)
	})
	c, host := newClient(t, Config{}), strings.TrimPrefix(home.URL, "http://")
	r := at(c, host, "a/b", Credentials{IdentityToken: "r0"})
	for _, want := range []string{"t1", "t1", "t2"} {
		if want == "t2" {
			for _, s := range dialTo(t, c, host, host)[0].sessions {
				for _, one := range s.tokens {
					one.until = time.Now()
				}
			}
		}
		if tags, err := r.Tags(t.Context()); err != nil || tags[0] != want {
			t.Errorf("%v %v, want %s", tags, err, want)
		}
	}
	if strings.Join(grants, " ") != "r0 r1" {
		t.Errorf("refresh tokens %q", grants)
	}
}

// Uploads may go to storage on another host, which gets no credentials.
func TestUploadElsewhere(t *testing.T) {
	var stored string
	storage := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stored = string(body)
		w.WriteHeader(http.StatusCreated)
	})
	home := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		if !basicChallenge(w, r) && r.Method == http.MethodPost {
			w.Header().Set("Location", storage.URL+"/put?sig=a%2Fb%20c")
			w.WriteHeader(http.StatusAccepted)
		}
	})
	r := at(newClient(t, Config{}), strings.TrimPrefix(home.URL, "http://"), "a/b", ann)
	d := describeBytes("", []byte("data"))
	if err := r.PushBlob(t.Context(), d, opener([]byte("data")), nil); err != nil || stored != "data" {
		t.Fatalf("%q %v", stored, err)
	}
	q := storage.requests()[0]
	if q.Header.Get("Authorization") != "" || !strings.HasPrefix(q.URL.RawQuery, "sig=a%2Fb%20c&digest=sha256") {
		t.Errorf("%v %s", q.Header, q.URL.RawQuery)
	}
}

func TestSearch(t *testing.T) {
	reg := newWitness(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/search" {
			io.WriteString(w, `{"num_results":2,"results":[{"name":"a/b","star_count":3,"is_official":true,"description":"d"},{"name":"c"}]}`)
		}
	})
	c, host := newClient(t, Config{}), strings.TrimPrefix(reg.URL, "http://")
	got, err := c.Search(t.Context(), host+"/some/thing", 25, ann)
	if err != nil || len(got) != 2 || got[0] != (SearchResult{Name: "a/b", Description: "d", StarCount: 3, IsOfficial: true}) {
		t.Errorf("%+v %v", got, err)
	}
	all := reg.requests()
	if q := all[len(all)-1]; q.URL.Query().Get("q") != "some/thing" || q.URL.Query().Get("n") != "25" || q.Header.Get("Authorization") != basic("ann", "secret") {
		t.Errorf("%s %v", q.URL, q.Header)
	}
	if got, err = c.Search(t.Context(), host+"/x", 1, Credentials{}); err != nil || len(got) != 1 {
		t.Errorf("%+v %v", got, err)
	}
	for _, limit := range []int{0, 101} {
		if _, err := c.Search(t.Context(), "x", limit, Credentials{}); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is outside the range of [1, 100]") {
			t.Error(err)
		}
	}
	for term, want := range map[string]string{"busybox": "index.docker.io busybox", "library/busybox": "index.docker.io busybox", "me/app": "index.docker.io me/app",
		"docker.io/me/app": "index.docker.io me/app", "reg.example:5/a/b": "reg.example:5 a/b", "localhost/a": "localhost a", "": "index.docker.io "} {
		if h, rest, err := splitTerm(term); err != nil || h+" "+rest != want {
			t.Errorf("%q: %s %s %v", term, h, rest, err)
		}
	}
	for _, term := range []string{"https://x/y", "u@h.x/y", "a:b:c/x"} {
		if _, _, err := splitTerm(term); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", term, err)
		}
	}
	for host, want := range map[string]string{"": "docker.io", "https://index.docker.io/v1/": "docker.io", "registry-1.docker.io": "docker.io", "reg:5000": "reg:5000", "https://reg/v2/": "reg"} {
		if got := loginDomain(host); got != want {
			t.Errorf("%q: %s", host, got)
		}
	}
}

func TestChallenges(t *testing.T) {
	for text, want := range map[string]string{
		`Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"`: `bearer realm=https://a/t scope=repository:a/b:pull,push service=s`,
		`basic Realm = "x \"y\"" , charset=utf-8`:                                 `basic charset=utf-8 realm=x "y"`,
		`Negotiate YWJj==, Bearer realm=a, Basic realm="b"`:                       `negotiate|bearer realm=a|basic realm=b`,
		`Basic`:                         `basic`,
		`,,Basic realm=x,,Bearer ,`:     `basic realm=x|bearer`,
		`Bearer realm="unended`:         `bearer`,
		`="x", Basic`:                   `basic`,
		`realm="x"`:                     ``,
		strings.Repeat("Basic, ", 5000): ``,
	} {
		var got []string
		for _, c := range parseChallenges(text) {
			line := c.scheme
			for _, key := range []string{"charset", "realm", "scope", "service"} {
				if v, ok := c.params[key]; ok {
					line += " " + key + "=" + v
				}
			}
			got = append(got, line)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%.60s: %s, want %s", text, strings.Join(got, "|"), want)
		}
	}
}

func TestSharedAddressSpace(t *testing.T) {
	if !sharedSpace.Contains(netip.MustParseAddr("100.127.255.255")) || sharedSpace.Contains(netip.MustParseAddr("100.128.0.0")) {
		t.Error(sharedSpace)
	}
}
