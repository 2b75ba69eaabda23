package cli_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tarehq/tare/cli"
	"github.com/tarehq/tare/cli/command"
)

// fake is a daemon that answers by handlers, one for each method and path
// without the version, and records what it was asked.
type fake struct {
	t       *testing.T
	host    string
	version string // requests with a newer version are refused; "" takes all
	config  string // the directory of config.json
	env     map[string]string

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	requests []string // method, path and query
	bodies   map[string][]byte
	auths    map[string]string // X-Registry-Auth, decoded
}

func newFake(t *testing.T) *fake {
	dir, err := os.MkdirTemp("", "tare-cli-")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, host: "unix://" + path, config: filepath.Join(dir, "config"),
		env: map[string]string{}, handlers: map[string]http.HandlerFunc{}, bodies: map[string][]byte{}, auths: map[string]string{}}
	server := &http.Server{Handler: f}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Close()
		os.RemoveAll(dir)
	})
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if rest, ok := strings.CutPrefix(path, "/v"); ok {
		var version string
		version, path, _ = strings.Cut(rest, "/")
		path = "/" + path
		if f.version != "" && version != f.version {
			fail(w, 400, "client version "+version+" is too new. Maximum supported API version is "+f.version)
			return
		}
	}
	key := r.Method + " " + path
	f.mu.Lock()
	f.requests = append(f.requests, strings.TrimSuffix(key+"?"+r.URL.RawQuery, "?"))
	handler := f.handlers[key]
	if auth, err := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth")); err == nil {
		f.auths[key] = string(auth)
	}
	f.mu.Unlock()
	if handler == nil {
		if path == "/_ping" {
			w.Header().Set("Api-Version", f.version)
			return
		}
		fail(w, 404, "page not found: "+key)
		return
	}
	if r.Header.Get("Upgrade") == "" || r.ContentLength > 0 {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		f.mu.Lock()
		f.bodies[key] = body
		f.mu.Unlock()
	}
	handler(w, r)
}

// on answers a method and path by a status and JSON.
func (f *fake) on(key string, status int, v any) {
	f.handle(key, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if v != nil {
			json.NewEncoder(w).Encode(v)
		}
	})
}

func (f *fake) handle(key string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handlers[key] = h
}

func (f *fake) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.requests...)
}

func (f *fake) body(key string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bodies[key]
}

// auth is the X-Registry-Auth that came last.
func (f *fake) auth(key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.auths[key]
}

// configure writes config.json.
func (f *fake) configure(text string) (path string) {
	path = filepath.Join(f.config, "config.json")
	if err := errors.Join(os.MkdirAll(f.config, 0o700), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// session is what a call works with.
func (f *fake) session(in io.Reader, out, errOut io.Writer) *command.Session {
	return &command.Session{In: in, Out: out, Err: errOut, Getenv: func(name string) string {
		switch name {
		case "TARE_HOST":
			return f.host
		case "DOCKER_CONFIG":
			return f.config
		}
		return f.env[name]
	}}
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// hijack answers an upgrade and hands the connection to serve.
func hijack(t *testing.T, w http.ResponseWriter, serve func(c net.Conn, r io.Reader)) {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	serve(c, rw)
}

// frame writes one frame of a multiplexed stream.
func frame(w io.Writer, stream byte, text string) {
	head := [8]byte{stream}
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	w.Write(head[:])
	io.WriteString(w, text)
}

// result is what one call of the program gave.
type result struct {
	code     int
	out, err string
}

// call runs the program against the fake.
func (f *fake) call(in io.Reader, args ...string) result {
	var out, errOut bytes.Buffer
	code := cli.Main(context.Background(), f.session(in, &out, &errOut), args)
	return result{code, out.String(), errOut.String()}
}
