package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tarehq/tare/fault"
)

// serve answers on a unix socket.
func serve(t *testing.T, handler http.Handler) (*Client, *int) {
	dir, err := os.MkdirTemp("", "tare-client-")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	connections := 0
	s := &http.Server{Handler: handler, ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections++
		}
	}}
	go s.Serve(l)
	t.Cleanup(func() {
		s.Close()
		os.RemoveAll(dir)
	})
	c, err := New(Endpoint{Host: "unix://" + path}, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, &connections
}

func TestKindsCrossTheSocket(t *testing.T) {
	c, connections := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := 0
		fmt.Sscanf(strings.TrimSuffix(filepath.Base(filepath.Dir(r.URL.Path)), "/"), "%d", &status)
		w.WriteHeader(status)
		if status != 304 {
			fmt.Fprintf(w, `{"message":"said %d"}`, status)
		}
	}))
	for status, kind := range map[int]fault.Kind{400: fault.Invalid, 401: fault.Unauthorized, 403: fault.Forbidden, 404: fault.NotFound,
		406: fault.Invalid, 409: fault.Conflict, 500: fault.Internal, 501: fault.NotImplemented, 503: fault.Unavailable} {
		_, err := c.ContainerInspect(t.Context(), itoa(status))
		if fault.KindOf(err) != kind || err == nil || err.Error() != fmt.Sprintf("Error response from daemon: said %d", status) {
			t.Errorf("%d: %v, %v", status, fault.KindOf(err), err)
		}
	}
	if err := c.ContainerStart(t.Context(), "304", ""); err != nil {
		t.Error(err)
	}
	if *connections != 1 {
		t.Errorf("%d connections", *connections)
	}
}

// TestIdleConnectionIsGone has a daemon that closes every connection after one
// answer without saying so.
func TestIdleConnectionIsGone(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Skip(err) // the temporary directory's name is too long
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			c.Close()
		}
	}()
	c, _ := New(Endpoint{Host: "unix://" + filepath.Join(dir, "s")}, "")
	for range 3 {
		if _, err := c.InfoRaw(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingIsDoneTwice has a daemon that dies of its second request.
func TestNothingIsDoneTwice(t *testing.T) {
	dir, err := os.MkdirTemp("", "tare-client-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kills := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(in)
				if err != nil || r.Method == "POST" {
					if err == nil {
						kills <- r.URL.Path
					}
					break
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
			}
			c.Close()
		}
	}()
	c, err := New(Endpoint{Host: "unix://" + filepath.Join(dir, "s")}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.InfoRaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.ContainerKill(t.Context(), "x", ""); !errors.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if len(kills) != 1 {
		t.Errorf("the container was killed %d times", len(kills))
	}
}

func TestCancel(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	w, err := c.ContainerWait(ctx, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := w.Code(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"Version":"9"}`) }))
	defer s.Close()
	c, err := New(Endpoint{Host: "tcp://" + s.Listener.Addr().String(), TLS: &TLSFile{}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.ServerVersion(t.Context()); err != nil || v.Version != "9" {
		t.Error(v, err)
	}
	c, _ = New(Endpoint{Host: "tcp://" + s.Listener.Addr().String(), TLS: &TLSFile{Verify: true}}, "")
	if _, err := c.ServerVersion(t.Context()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("an unknown certificate is trusted: %v", err)
	}
}

func TestParseHost(t *testing.T) {
	for in, want := range map[string]string{
		"unix:///x": "unix:///x", "unix://": DefaultHost, "/run/x.sock": "unix:///run/x.sock", "tcp://h:1": "tcp://h:1", "tcp://h": "tcp://h:2375",
		"h:99": "tcp://h:99", "ssh://me@h:22/run/x.sock": "ssh://me@h:22/run/x.sock", "tcp://": "tcp://127.0.0.1:2375", "tcp://[::1]:5": "tcp://[::1]:5", "tcp://[::1]": "tcp://[::1]:2375",
	} {
		if got, err := ParseHost(in, false); got != want || err != nil {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	if got, _ := ParseHost("tcp://h", true); got != "tcp://h:2376" {
		t.Error(got)
	}
	for _, in := range []string{"ssh://", "ssh://h?x=y", "fd://", "npipe:////x"} {
		if got, err := ParseHost(in, false); err == nil {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestDemultiplex(t *testing.T) {
	var out, errOut strings.Builder
	in := "\x01\x00\x00\x00\x00\x00\x00\x03abc\x02\x00\x00\x00\x00\x00\x00\x01e\x00\x00\x00\x00\x00\x00\x00\x01d"
	if err := Demultiplex(&out, &errOut, strings.NewReader(in)); err != nil || out.String() != "abcd" || errOut.String() != "e" {
		t.Error(out.String(), errOut.String(), err)
	}
	for _, bad := range []string{in[:9], in[:4], "\x07\x00\x00\x00\x00\x00\x00\x01x", "\x03\x00\x00\x00\x00\x00\x00\x04oops"} {
		if err := Demultiplex(io.Discard, io.Discard, strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestPathsAreEscaped(t *testing.T) {
	var got string
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.RequestURI
		io.WriteString(w, "{}")
	}))
	c.ImageInspectRaw(t.Context(), "localhost:5000/a b?c\r\nX: y", "")
	if want := "/v" + APIVersion + "/images/localhost:5000/a%20b%3Fc%0D%0AX:%20y/json"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c.ContainerInspect(t.Context(), "../x/..")
	if want := "/v" + APIVersion + "/containers/..%2Fx%2F../json"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestUploadBreaks has a source that fails half way: the error is the source's,
// and nobody waits.
func TestUploadBreaks(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	broken := errors.New("the disk is broken")
	in := io.MultiReader(strings.NewReader("start"), iotest.ErrReader(broken))
	err := c.ImageLoad(t.Context(), in, false, nil, func(Progress) error { return nil })
	if !errors.Is(err, broken) || err.Error() != broken.Error() {
		t.Error(err)
	}
}

// TestDaemonDies has a daemon that closes without an answer.
func TestDaemonDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		for err == nil {
			conn.Close()
			conn, err = l.Accept()
		}
	}()
	c, err := New(Endpoint{Host: "unix://" + path}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.InfoRaw(t.Context())
	if fault.KindOf(err) != fault.Unavailable || !strings.HasPrefix(err.Error(), "the connection to unix://"+path+" broke: ") || strings.Contains(err.Error(), "->") {
		t.Error(err)
	}
}

// TestUploadRefused has a daemon that answers before it has read the body.
func TestUploadRefused(t *testing.T) {
	c, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"message":"no"}`)
	}))
	c.negotiated = true
	endless := io.LimitReader(zeros{}, 64<<20)
	err := c.ImageLoad(t.Context(), endless, false, nil, func(Progress) error { return nil })
	if fault.KindOf(err) != fault.Invalid {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
