package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry/config"
)

// freePort is one that nobody listens on, for an address in a configuration.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get reads an address.
func get(t *testing.T, url string, headers ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// One registry with all of it, looked at from outside.
func TestOperation(t *testing.T) {
	var mu sync.Mutex
	var told []string
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e struct {
			Events []struct {
				Action string
				Target struct{ Repository, Tag string }
				Actor  struct{ Name string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range e.Events {
			told = append(told, fmt.Sprint(e.Action, " ", e.Target.Repository, ":", e.Target.Tag, " ", e.Actor.Name, " ", r.Header.Get("X-Key")))
		}
	}))
	defer hook.Close()
	dir := t.TempDir()
	file, access, numbers := filepath.Join(dir, "registry.toml"), filepath.Join(dir, "access.log"), freePort(t)
	write(t, filepath.Join(dir, "key"), "k7\n")
	write(t, file, fmt.Sprintf(`
[storage]
root = %q
[auth]
htpasswd = %q
[[notify]]
url = %q
headers = {X-Key = {file = %q}}
[metrics]
listen = %q
[log]
access = %q
format = "text"
[limits]
blob = 4096
`, filepath.Join(dir, "data"), htpasswd(t, "alice", "secret"), hook.URL, filepath.Join(dir, "key"), numbers, access))
	r := start(t, "--config", file)
	if err := push(t.Context(), r.repository(t, "team/app", alice), "layer", "v1"); err != nil {
		t.Fatal(err)
	}
	if err := push(t.Context(), r.repository(t, "team/app", alice), strings.Repeat("x", 5000), "v2"); err == nil {
		t.Error("a blob beyond the limit was taken")
	}
	testutil.Eventually(t, 20*time.Second, "the webhook", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(strings.Join(told, "\n"), "push team/app:v1 alice k7")
	})
	status, header, _ := get(t, "http://"+r.host+"/v2/team/app/manifests/v1?token=hunter2", "X-Request-Id", "abc7", "Authorization", "Bearer hunter2")
	if status != 401 || header.Get("X-Request-Id") != "abc7" {
		t.Errorf("%d %v", status, header)
	}
	line := regexp.MustCompile(`method=GET path=/v2/team/app/manifests/v1 status=401 .*id=abc7 .*code=UNAUTHORIZED`)
	testutil.Eventually(t, 20*time.Second, "the request in the access log", func() bool {
		text, _ := os.ReadFile(access)
		return line.Match(text) && strings.Contains(string(text), "user=alice")
	})
	if text, _ := os.ReadFile(access); strings.Contains(string(text), "hunter2") || strings.Contains(string(text), "secret") {
		t.Errorf("the access log has secrets:\n%s", text)
	}
	for _, at := range []string{"http://" + r.host, "http://" + numbers} {
		for _, path := range []string{healthPath, readyPath} {
			if status, _, body := get(t, at+path); status != 200 || body != "ok\n" {
				t.Errorf("%s%s: %d %s", at, path, status, body)
			}
		}
	}
	_, _, text := get(t, "http://"+numbers+"/metrics")
	for _, want := range []string{
		`tare_registry_requests_total{method="GET",noun="manifest",status="4xx"} `, `tare_registry_storage_operations_total{operation="put_manifest"} 1`,
		`tare_registry_events_delivered_total{receiver="0 127.0.0.1`, "\ntare_registry_uploads 0\n", "\ntare_registry_connections ", "\nprocess_resident_memory_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if status, _, _ := get(t, "http://"+r.host+"/metrics"); status != 404 {
		t.Errorf("clients see the metrics: %d", status)
	}
	if status, h, _ := get(t, "http://"+r.host+"/"); status != 401 || !strings.HasPrefix(h.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("a page without a password: %d %v", status, h)
	}
	if status, _, page := get(t, "http://"+r.host+"/", "Authorization", "Basic YWxpY2U6c2VjcmV0"); status != 200 || !strings.Contains(page, "team/app") {
		t.Errorf("a page with a password: %d %s", status, page)
	}
}

func TestPagesCanBeOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registry.toml")
	write(t, file, fmt.Sprintf("[storage]\nroot = %q\n[http]\nweb = false\n", t.TempDir()))
	if status, _, _ := get(t, "http://"+start(t, "--config", file).host+"/"); status != 404 {
		t.Errorf("a page that is off answers %d", status)
	}
}

func TestHealth(t *testing.T) {
	var asked atomic.Int64
	var failing atomic.Value
	failing.Store(errors.New(""))
	var reported atomic.Int64
	h := &health{report: func(error) { reported.Add(1) }, ready: func(context.Context) error {
		asked.Add(1)
		if err := failing.Load().(error); err.Error() != "" {
			return err
		}
		return nil
	}}
	ask := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	for range 100 {
		if code, text := ask("GET", readyPath); code != 200 || text != "ok\n" {
			t.Fatalf("%d %s", code, text)
		}
	}
	if n := asked.Load(); n > 10 { // a second each
		t.Errorf("the storage was asked %d times", n)
	}
	failing.Store(errors.New("the disk /secret is broken"))
	testutil.Eventually(t, 20*time.Second, "not ready", func() bool {
		code, text := ask("GET", readyPath)
		if code != 200 && text != "not ready\n" {
			t.Fatalf("%d %s", code, text)
		}
		return code == 503
	})
	if reported.Load() != 1 {
		t.Errorf("the failure was told %d times", reported.Load())
	}
	if code, _ := ask("GET", healthPath); code != 200 {
		t.Errorf("alive: %d", code)
	}
	failing.Store(errors.New(""))
	testutil.Eventually(t, 20*time.Second, "ready again", func() bool { code, _ := ask("GET", readyPath); return code == 200 })
	h.stopping.Store(true)
	if code, _ := ask("GET", readyPath); code != 503 {
		t.Errorf("ready while stopping: %d", code)
	}
	if code, _ := ask("POST", healthPath); code != 405 {
		t.Errorf("POST: %d", code)
	}
}

// A head that does not come to its end is not waited for.
func TestStalledHeaderIsCut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(config.HTTP{}, http.NotFoundHandler(), nil, newLog(io.Discard, config.Log{}))
	if s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > time.Minute {
		t.Fatalf("heads have %v", s.ReadHeaderTimeout)
	}
	s.ReadHeaderTimeout = 300 * time.Millisecond
	go s.Serve(l)
	defer s.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // a byte now and then, for ever
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		io.WriteString(c, "GET / HTTP/1.1\r\nX: ")
		for {
			select {
			case <-tick.C:
				io.WriteString(c, "x")
			case <-stop:
				return
			}
		}
	}()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var timeout net.Error
	if _, err := io.Copy(io.Discard, c); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("a head that trickles is waited for")
	}
}

func TestConnections(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registry.toml")
	write(t, file, fmt.Sprintf("[storage]\nroot = %q\n[limits]\nconnections = 2\n", t.TempDir()))
	r := start(t, "--config", file)
	ask := func(c net.Conn) bool {
		io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, _ := c.Read(make([]byte, 100))
		return n > 0
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", r.host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first, second := dial(), dial()
	if !ask(first) || !ask(second) {
		t.Fatal("connections within the limit get no answer")
	}
	if ask(dial()) {
		t.Error("a third connection is answered")
	}
	first.Close()
	testutil.Eventually(t, 20*time.Second, "room for another", func() bool { return ask(dial()) })
}

// Everything that stands before the handlers leaves files to the kernel, and
// little to do with a manifest.
func BenchmarkChain(b *testing.B) {
	root := b.TempDir()
	c := config.Default()
	c.Storage.Root, c.Metrics.Listen, c.Log.Access = root, "127.0.0.1:0", filepath.Join(root, "access.log")
	log := newLog(io.Discard, c.Log)
	s, err := openStorage(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ops, err := operate(b.Context(), c, io.Discard, log)
	if err != nil {
		b.Fatal(err)
	}
	defer ops.close(b.Context())
	p := pace{time.Minute, 4096}
	counted := ops.watch(s)
	with := p.guard(ops.wrap(routes(c, counted, counted, nil, nil, nil, log)))
	without := p.guard(routes(c, s, s, nil, nil, nil, log))
	blob := strings.Repeat("x", 1<<20)
	d := digest.FromString(blob)
	put := func(method, path, body, mediaType string) {
		w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", mediaType)
		if routes(c, s, s, nil, nil, nil, log).ServeHTTP(w, r); w.Code != 201 {
			b.Fatal(w.Body)
		}
	}
	put("POST", "/v2/a/blobs/uploads/?digest="+string(d), blob, "")
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	layer := fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":%d}`, d, len(blob))
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, mediaType, layer, strings.Repeat(layer+",", 8)+layer)
	put("PUT", "/v2/a/manifests/latest", text, mediaType)
	bareManifest := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		io.WriteString(w, text)
	})
	plain := filepath.Join(root, "plain")
	if err := os.WriteFile(plain, []byte(blob), 0o600); err != nil {
		b.Fatal(err)
	}
	bareFile := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, plain) })
	for _, one := range []struct {
		name, path string
		h          http.Handler
		size       int
	}{
		{"manifest/bare", "/", bareManifest, len(text)},
		{"manifest/handlers", "/v2/a/manifests/latest", without, len(text)},
		{"manifest/all", "/v2/a/manifests/latest", with, len(text)},
		{"blob/bare", "/", bareFile, len(blob)},
		{"blob/handlers", "/v2/a/blobs/" + string(d), without, len(blob)},
		{"blob/all", "/v2/a/blobs/" + string(d), with, len(blob)},
	} {
		b.Run(one.name, func(b *testing.B) { benchmarkGet(b, p, one.h, one.path, one.size) })
	}
}
