package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry"
)

func TestRecord(t *testing.T) {
	ended := make(chan Record, 1)
	s := httptest.NewServer(Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.(registry.Reporter).Report(registry.Outcome{User: "eva", Code: "DENIED", Message: "no"})
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(403)
		io.WriteString(w, "four")
	}), Config{Observers: []func(*Record){func(r *Record) { ended <- *r }}}))
	defer s.Close()
	r, err := http.NewRequest("PUT", s.URL+"/v2/a/blobs/uploads/1?digest=x", strings.NewReader("received"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("User-Agent", "agent")
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	w.Body.Close()
	g := <-ended
	if g.ID == "" || g.ID != w.Header.Get("X-Request-Id") || g.Time.IsZero() || !strings.HasPrefix(g.Remote, "127.0.0.1:") {
		t.Errorf("%+v, %v", g, w.Header)
	}
	g.ID, g.Time, g.Took, g.Remote = "", time.Time{}, 0, ""
	want := Record{Method: "PUT", Path: "/v2/a/blobs/uploads/1", Noun: "upload", Status: 403, In: 8, Out: 4, Agent: "agent",
		Outcome: registry.Outcome{User: "eva", Code: "DENIED", Message: "no"}}
	if g != want {
		t.Errorf("got  %+v\nwant %+v", g, want)
	}
}

// A handler that gives up is noted, and its panic goes on to net/http.
func TestAbort(t *testing.T) {
	early := false
	h := Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
		Config{Observers: []func(*Record){func(r *Record) { early = r.Early }}})
	defer func() {
		if p := recover(); p != http.ErrAbortHandler || !early {
			t.Errorf("panic %v, early %v", p, early)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

func TestRequestID(t *testing.T) {
	for given, kept := range map[string]bool{"abc-1.2_3:4/5+6=": true, "": false, "a b": false, "a\"": false, "é": false, strings.Repeat("x", 129): false} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Request-Id", given)
		id := requestID(r)[0]
		if (id == given) != kept || id == "" || r.Header.Get("X-Request-Id") != id {
			t.Errorf("%q became %q", given, id)
		}
	}
}

func TestClient(t *testing.T) {
	c := Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/64")}}
	for _, x := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:5", "198.51.100.7", "192.0.2.1:5"}, // a stranger says so
		{"10.1.1.1:5", "", "10.1.1.1:5"},
		{"10.1.1.1:5", "198.51.100.7", "198.51.100.7:0"},
		{"[::ffff:10.1.1.1]:5", "198.51.100.7:99", "198.51.100.7:99"},
		{"10.1.1.1:5", "1.2.3.4, 198.51.100.7, 10.2.2.2", "198.51.100.7:0"},
		{"10.1.1.1:5", "1.2.3.4, nonsense", "10.1.1.1:5"},
		{"10.1.1.1:5", "nonsense, 10.3.3.3", "10.3.3.3:0"},
		{"[2001:db8::9]:5", "2001:db8:1::7", "[2001:db8:1::7]:0"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = x.remote
		if x.forwarded != "" {
			r.Header.Set("X-Forwarded-For", x.forwarded)
		}
		if got := c.client(r); got != x.want {
			t.Errorf("%s with %q is %s, want %s", x.remote, x.forwarded, got, x.want)
		}
	}
}

// seen is a connection that notes whether it is handed a file to send.
type seen struct {
	*net.TCPConn
	files *int
}

func (c seen) ReadFrom(r io.Reader) (int64, error) {
	inner := r
	if l, ok := r.(*io.LimitedReader); ok {
		inner = l.R
	}
	if _, ok := inner.(*os.File); ok {
		*c.files++
	}
	return c.TCPConn.ReadFrom(r)
}

type seeing struct {
	*net.TCPListener
	files *int
}

func (l seeing) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return seen{c, l.files}, nil
}

func TestFilesAreSentByTheKernel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out := make(chan int64, 1)
	s := &http.Server{Handler: Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	}), Config{Observers: []func(*Record){func(r *Record) { out <- r.Out }}})}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	go s.Serve(seeing{l, &files})
	defer s.Close()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n := <-out; n != 1<<20 || files != 1 {
		t.Errorf("%d bytes are noted, %d files were handed to the connection", n, files)
	}
}

// shared is a buffer that is read while it is written.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestLogLine(t *testing.T) {
	var out shared
	l, err := OpenLog("", &out, "json", quiet())
	if err != nil {
		t.Fatal(err)
	}
	l.Observe(&Record{Time: time.Now(), Took: 1500 * time.Millisecond, Method: "GET", Path: "/v2/\n\"x", Status: 404, Out: 12, Remote: "192.0.2.1:0", Agent: strings.Repeat("a", 9000),
		ID: "7", Outcome: registry.Outcome{User: "eva", Code: "NAME_UNKNOWN", Message: "none"}})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("%v: %s", err, &out.b)
	}
	for key, want := range map[string]any{"msg": "request", "method": "GET", "path": "/v2/\n\"x", "status": 404.0, "bytes": 12.0, "seconds": 1.5,
		"remote": "192.0.2.1", "id": "7", "user": "eva", "code": "NAME_UNKNOWN", "error": "none", "agent": strings.Repeat("a", 512) + "…"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}

func TestLogLineOfText(t *testing.T) {
	var out shared
	l, err := OpenLog("", &out, "text", quiet())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	l.Observe(&Record{Time: at, Took: 1500 * time.Microsecond, Method: "GET", Path: "/v2/a b\n\x1b", Status: 200, In: 3, Agent: "", Remote: "[2001:db8::1]:7", ID: "7", Early: true})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want := `time=2026-01-02T03:04:05.006Z level=INFO msg=request method=GET path="/v2/a b\n\x1b" status=200 bytes=0 seconds=0.001500 remote=[2001:db8::1]:7 id=7 received=3 early=true` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", &out.b, want)
	}
}

func TestLogIsRotated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	l, err := OpenLog(file, nil, "text", quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	has := func(file, id string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(file)
			return strings.Contains(string(text), "id="+id)
		}
	}
	l.Observe(&Record{ID: "first"})
	testutil.Eventually(t, 20*time.Second, "the first line", has(file, "first"))
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	l.Observe(&Record{ID: "second"})
	testutil.Eventually(t, 20*time.Second, "the second line, in a new file", has(file, "second"))
	if has(file+".1", "second")() || has(file, "first")() {
		t.Error("the lines are mixed")
	}
}

// blocked is an output that nobody reads.
type blocked struct{ release chan struct{} }

func (b blocked) Write([]byte) (int, error) { <-b.release; return 0, errors.New("gone") }

func TestBlockedLogLosesLines(t *testing.T) {
	var told shared
	release := make(chan struct{})
	l, err := OpenLog("", blocked{release}, "text", slog.New(slog.NewTextHandler(&told, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * maxGather / 1000 { // returns, for all that nothing is written
		l.Observe(&Record{Agent: strings.Repeat("x", 512), Path: strings.Repeat("y", 512)})
	}
	if len(l.buf) > maxGather+4096 {
		t.Errorf("%d bytes are gathered", len(l.buf))
	}
	close(release)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(told.String(), "lines of the access log were lost") {
		t.Errorf("nobody is told: %s", &told.b)
	}
}

func TestLogThatCannotBe(t *testing.T) {
	if _, err := OpenLog(filepath.Join(t.TempDir(), "none", "x"), nil, "text", quiet()); err == nil {
		t.Error("a log in a directory that is not there was opened")
	}
}

// BenchmarkHandler is what notes cost a request.
func BenchmarkHandler(b *testing.B) {
	l, err := OpenLog(filepath.Join(b.TempDir(), "log"), nil, "text", quiet())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })
	for name, c := range map[string]Config{"ids": {}, "log": {Observers: []func(*Record){l.Observe}}} {
		b.Run(name, func(b *testing.B) {
			h, r := Handler(next, c), httptest.NewRequest("GET", "/v2/library/image/manifests/latest", nil)
			r.Header.Set("User-Agent", "docker/28.5")
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
