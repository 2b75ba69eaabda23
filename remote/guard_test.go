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
	if _, err := r.Tags(t.Context()); !errors.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "list 192.0.2.1 in insecure-registries") {
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

func TestSharedAddressSpace(t *testing.T) {
	if !sharedSpace.Contains(netip.MustParseAddr("100.127.255.255")) || sharedSpace.Contains(netip.MustParseAddr("100.128.0.0")) {
		t.Error(sharedSpace)
	}
}
