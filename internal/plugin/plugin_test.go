package plugin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	firstPause = 10 * time.Millisecond
	os.Exit(m.Run())
}

// testDirs makes directories with short paths, as sockets need.
func testDirs(t *testing.T) Dirs {
	t.Helper()
	dir, err := os.MkdirTemp("", "plugin")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := Dirs{Sockets: filepath.Join(dir, "run"), Specs: []string{filepath.Join(dir, "etc"), filepath.Join(dir, "lib")}}
	for _, sub := range append(d.Specs, d.Sockets) {
		must(t, os.Mkdir(sub, 0o755))
	}
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answers serves each method with what its function gives, and activation as a
// driver of the kind Test.
type answers map[string]http.HandlerFunc

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	if f := a[method]; f != nil {
		f(w, r)
		return
	}
	if method == "Plugin.Activate" {
		io.WriteString(w, `{"Implements":["Test"]}`)
		return
	}
	http.NotFound(w, r)
}

// listen serves on a socket until the test ends.
func listen(t *testing.T, path string, h http.Handler) *http.Server {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	return serve(t, l, h)
}

func serve(t *testing.T, l net.Listener, h http.Handler) *http.Server {
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestACallCarriesJSONBothWays(t *testing.T) {
	dirs := testDirs(t)
	must(t, os.Mkdir(filepath.Join(dirs.Sockets, "deep"), 0o755))
	for _, path := range []string{"flat.sock", "deep/deep.sock"} {
		listen(t, filepath.Join(dirs.Sockets, path), answers{"Test.Echo": func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || r.Header.Get("Accept") != mediaType {
				t.Errorf("%s with Accept %q", r.Method, r.Header.Get("Accept"))
			}
			io.Copy(w, r.Body)
		}})
	}
	s := New(dirs)
	defer s.Close()
	for _, name := range []string{"flat", "deep"} {
		p, err := s.Get(t.Context(), name, "Test")
		must(t, err)
		var got struct{ Word string }
		must(t, p.Call(t.Context(), "Test.Echo", map[string]string{"Word": "hello"}, &got))
		if got.Word != "hello" {
			t.Errorf("%s answers %q", name, got.Word)
		}
	}
	if known := s.Known("Test"); !slices.Equal(known, []string{"deep", "flat"}) {
		t.Errorf("known: %q", known)
	}
	if _, err := s.Get(t.Context(), "flat", "VolumeDriver"); !errors.Is(err, Invalid) || !strings.Contains(err.Error(), "does not implement VolumeDriver") {
		t.Errorf("a kind that it does not implement: %v", err)
	}
}

func TestNamesThatAreNone(t *testing.T) {
	dirs := testDirs(t)
	listen(t, filepath.Join(filepath.Dir(dirs.Sockets), "out.sock"), answers{})
	must(t, os.WriteFile(filepath.Join(dirs.Sockets, "file.sock"), nil, 0o644))
	s := New(dirs)
	for _, name := range []string{"", "absent", "../out", "..", ".hidden", "a/b", "file", "a\x00b"} {
		_, err := s.Get(t.Context(), name, "Test")
		if want := fmt.Sprintf("plugin %q not found", name); !errors.Is(err, NotFound) || err.Error() != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	if len(s.known) != 0 {
		t.Errorf("%d names without a plugin are remembered", len(s.known))
	}
}

func TestRefusals(t *testing.T) {
	dirs := testDirs(t)
	say := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, text)
		}
	}
	listen(t, filepath.Join(dirs.Sockets, "p.sock"), answers{
		"Test.Err":   say(200, `{"Err":"no such thing"}`),
		"Test.Error": say(200, `{"Error":"no such place"}`),
		"Test.500":   say(500, `{"Err":"out of order"}`),
		"Test.Old":   say(500, "plain words\n"),
		"Test.Mute":  say(503, ""),
		"Test.Empty": say(200, ""),
	})
	p, err := New(dirs).Get(t.Context(), "p", "Test")
	must(t, err)
	for method, want := range map[string]string{
		"Test.Err":   "no such thing",
		"Test.Error": "no such place",
		"Test.500":   "Test.500: out of order",
		"Test.Old":   "Test.Old: plain words",
		"Test.Mute":  "Test.Mute: 503 Service Unavailable",
		"Test.None":  "Test.None: 404 page not found",
	} {
		var refusal *Refusal
		err := p.Call(t.Context(), method, nil, nil)
		if !errors.As(err, &refusal) || err.Error() != want || Unknown(err) != (method == "Test.None") {
			t.Errorf("%s: %v", method, err)
		}
	}
	must(t, p.Call(t.Context(), "Test.Empty", nil, &struct{}{}))
}

func TestHostileAnswersEnd(t *testing.T) {
	dirs := testDirs(t)
	var escaped atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { escaped.Store(true) }))
	defer elsewhere.Close()
	flood := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			for chunk := []byte(strings.Repeat(" ", 1<<20)); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	}
	listen(t, filepath.Join(dirs.Sockets, "p.sock"), answers{
		"Test.Flood":    flood(200),
		"Test.BadFlood": flood(500),
		"Test.Garbage":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"Test.Hang":     func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() },
		"Test.Drip": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "{")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"Test.Away": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
	})
	p, err := New(dirs).Get(t.Context(), "p", "Test")
	must(t, err)
	for method, want := range map[string]string{
		"Test.Flood":    "more than 16 MiB",
		"Test.BadFlood": "500",
		"Test.Garbage":  "not the protocol's JSON",
		"Test.Hang":     "does not answer Test.Hang",
		"Test.Drip":     "broke off its answer",
		"Test.Away":     "307",
	} {
		limit := 10 * time.Second
		if method == "Test.Hang" || method == "Test.Drip" {
			limit = 50 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := p.Call(ctx, method, nil, &struct{ Err string }{})
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %.300v", method, err)
		}
	}
	if escaped.Load() {
		t.Error("a redirect was followed")
	}
}

// A plugin that does not listen yet is waited for by Get and Call, and not by
// All and CallOnce; one that starts again is asked anew what it implements.
func TestPluginsThatComeAndGo(t *testing.T) {
	dirs := testDirs(t)
	path := filepath.Join(dirs.Sockets, "p.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	must(t, err)
	old.SetUnlinkOnClose(false)
	must(t, old.Close())
	s := New(dirs)
	if list, failed := s.All(t.Context(), "Test"); len(list) != 0 || len(failed) != 1 || !errors.Is(failed[0], Unavailable) {
		t.Errorf("with a dead plugin: %v, %v", list, failed)
	}
	got := make(chan error, 1)
	go func() {
		_, err := s.Get(t.Context(), "p", "Test")
		got <- err
	}()
	// It takes the dead one's place at once: one without a file is nobody's.
	first := listen(t, path+".new", answers{})
	must(t, os.Rename(path+".new", path))
	must(t, <-got)
	p, err := s.Get(t.Context(), "p", "Test")
	must(t, err)

	must(t, first.Close())
	must(t, os.Remove(path))
	if err := p.CallOnce(t.Context(), "Test.Any", nil, nil); !errors.Is(err, Unavailable) {
		t.Errorf("one that is gone: %v", err)
	}
	again, err := s.Get(t.Context(), "p", "Test")
	if err != nil || again != p {
		t.Errorf("while it starts again it is another: %v", err)
	}
	go func() { got <- again.Call(t.Context(), "Test.New", nil, nil) }()
	listen(t, path, answers{
		"Plugin.Activate": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"Implements":["Test","More"]}`) },
		"Test.New":        func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") },
	})
	must(t, <-got)
	_, err = s.Get(t.Context(), "p", "More")
	must(t, err)
}

// One activation serves all who wait for it, and who waits can give up.
func TestManyAskAtOnce(t *testing.T) {
	dirs := testDirs(t)
	var activations atomic.Int32
	release := make(chan struct{})
	listen(t, filepath.Join(dirs.Sockets, "slow.sock"), answers{"Plugin.Activate": func(w http.ResponseWriter, _ *http.Request) {
		activations.Add(1)
		<-release
		io.WriteString(w, `{"Implements":["Test"]}`)
	}})
	listen(t, filepath.Join(dirs.Sockets, "fast.sock"), answers{})
	s := New(dirs)
	got := make(chan error, 8)
	for range 8 {
		go func() {
			_, err := s.Get(t.Context(), "slow", "Test")
			got <- err
		}()
	}
	for activations.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	list, failed := s.All(ctx, "Test")
	if len(list) != 1 || list[0].Name != "fast" || len(failed) != 1 || !strings.Contains(failed[0].Error(), `plugin "slow" does not answer`) {
		t.Errorf("while one hangs: %v, %v", list, failed)
	}
	close(release)
	for range 8 {
		must(t, <-got)
	}
	if n := activations.Load(); n != 1 {
		t.Errorf("activated %d times", n)
	}
}

func TestSpecs(t *testing.T) {
	dirs := testDirs(t)
	plain := httptest.NewServer(answers{})
	defer plain.Close()
	ca, server, client := certificates(t)
	secure := httptest.NewUnstartedServer(answers{})
	pair, err := tls.LoadX509KeyPair(server.cert, server.key)
	must(t, err)
	pool := x509.NewCertPool()
	text, err := os.ReadFile(ca)
	must(t, err)
	pool.AppendCertsFromPEM(text)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	secure.StartTLS()
	defer secure.Close()
	address := strings.TrimPrefix(plain.URL, "http://")
	socket := filepath.Join(filepath.Dir(dirs.Sockets), "elsewhere.sock")
	listen(t, socket, answers{})
	write := func(name string, content any) {
		text, ok := content.(string)
		if !ok {
			b, err := json.Marshal(content)
			must(t, err)
			text = string(b)
		}
		path := filepath.Join(dirs.Specs[len(name)%2], name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	type m = map[string]any
	write("tcp.spec", "tcp://"+address+"\n")
	write("http.spec", plain.URL)
	write("deep/deep.spec", "unix://"+socket)
	write("json.json", m{"Name": "other", "Addr": "tcp://" + address})
	write("tls.json", m{"Addr": secure.URL, "TLSConfig": m{"CAFile": ca, "CertFile": client.cert, "KeyFile": client.key}})
	write("blind.json", m{"Addr": secure.URL, "TLSConfig": m{"CertFile": client.cert, "KeyFile": client.key}})
	write("anonymous.json", m{"Addr": secure.URL, "TLSConfig": m{"CAFile": ca}})
	write("stranger.json", m{"Addr": secure.URL, "TLSConfig": m{"CAFile": server.key}})
	write("scheme.spec", "ftp://x")
	write("bare.spec", "127.0.0.1")
	write("broken.json", "{")
	s := New(dirs)
	for name, want := range map[string]string{
		"tcp": "", "http": "", "deep": "", "json": "", "tls": "", "blind": "",
		"anonymous": "certificate required", "stranger": "holds no certificate",
		"scheme": "begins with neither unix://", "bare": "begins with neither unix://", "broken": "is no plugin's description",
	} {
		_, err := s.get(t.Context(), name, "Test", false)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, failed := s.All(t.Context(), "Test"); len(list) != 6 || len(failed) != 5 {
		t.Errorf("all: %d, failed: %v", len(list), failed)
	}
}

type pairFiles struct{ cert, key string }

// certificates makes an authority and two that it signed.
func certificates(t *testing.T) (ca string, server, client pairFiles) {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	must(t, err)
	ca = write("ca", "CERTIFICATE", der)
	sign := func(serial int64) pairFiles {
		leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		leaf := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, key)
		must(t, err)
		keyDER, err := x509.MarshalECPrivateKey(leafKey)
		must(t, err)
		return pairFiles{write(fmt.Sprint(serial), "CERTIFICATE", der), write(fmt.Sprint(serial, "-key"), "EC PRIVATE KEY", keyDER)}
	}
	return ca, sign(2), sign(3)
}
