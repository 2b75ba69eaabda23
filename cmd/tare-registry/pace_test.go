package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry/config"
)

// brisk gives up sooner than a registry does.
var brisk = pace{stall: 300 * time.Millisecond, rate: 1000}

// listen serves the handler at a port of its own, under the pace.
func listen(t *testing.T, p pace, t2 *tls.Config, h http.Handler) string {
	t.Helper()
	ls, err := bind(t.Context(), []string{"127.0.0.1:0"}, p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	end := make(chan error, 1)
	log := newLog(io.Discard, config.Log{Level: "error"})
	go func() {
		end <- answer(ctx, newServer(config.HTTP{}, p.guard(h), t2, log), ls, time.Millisecond, log)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-end; err != nil {
			t.Error(err)
		}
	})
	return ls[0].Addr().String()
}

// upload sends the head of a request with a body, and gives the connection.
func upload(t *testing.T, addr string, length int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", length)
	return c
}

func TestStalledBodyIsCut(t *testing.T) {
	got := make(chan error, 1)
	addr := listen(t, brisk, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		got <- err
	}))
	c := upload(t, addr, 100)
	io.WriteString(c, "a little")
	select {
	case err := <-got:
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), "the client sends too slowly") {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a body that does not move is waited for")
	}
}

// What no handler reads is read by net/http, and must not be waited for either.
func TestStalledBodyThatNobodyWants(t *testing.T) {
	addr := listen(t, brisk, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }))
	c := upload(t, addr, 1000)
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the connection is kept open")
	}
}

// A body that takes many times the stall, and moves, is read to its end, and its
// answer may take longer still.
func TestLongBodyThatMoves(t *testing.T) {
	addr := listen(t, brisk, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			return
		case <-time.After(3 * brisk.stall):
		}
		fmt.Fprintf(w, "%d %v", n, err)
	}))
	const parts, size = 20, 100
	c := upload(t, addr, parts*size)
	for range parts {
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		<-time.After(brisk.stall / 5) // some 1,600 bytes a second
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var answer strings.Builder
	buf := make([]byte, 1000)
	for !strings.Contains(answer.String(), "2000 <nil>") {
		n, err := c.Read(buf)
		answer.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v after %q", err, answer.String())
		}
	}
}

// Bytes that come one by one do not stall, and are too few.
func TestTricklingBodyIsCut(t *testing.T) {
	a := brisk.begin()
	for i := 1; ; i++ {
		a.moved(1, 100*time.Millisecond)
		if a.left <= 0 {
			break
		}
		if i == 10 {
			t.Fatalf("%v are left after %d bytes in a second", a.left, i)
		}
	}
	a = brisk.begin()
	for range 100 {
		a.moved(1000, 900*time.Millisecond)
	}
	if a.left != brisk.stall {
		t.Errorf("%v are left to a client that is fast enough", a.left)
	}
	a.moved(1<<30, time.Second)
	if a.left != brisk.stall {
		t.Errorf("%v are left: what was fast once can be slow for long", a.left)
	}
}

func TestReaderThatDoesNotReadIsCut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	cut := make(chan bool, 1)
	addr := listen(t, pace{stall: 100 * time.Millisecond, rate: 10 << 20}, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, file)
		cut <- true
	}))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-cut:
	case <-time.After(30 * time.Second):
		t.Fatal("a reader that does not read is waited for")
	}
}

func TestFilesAreSentWhole(t *testing.T) {
	content := make([]byte, 3*sendChunk+12345)
	rand.Read(content)
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := listen(t, brisk, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("the kernel cannot send files")
		}
		http.ServeFile(w, r, file)
	}))
	for _, c := range []struct {
		bytes    string
		from, to int
	}{{"", 0, len(content)}, {"bytes=100-", 100, len(content)}, {fmt.Sprintf("bytes=5-%d", sendChunk+4), 5, sendChunk + 5}, {"bytes=0-0", 0, 1}} {
		req, err := http.NewRequest("GET", "http://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.bytes != "" {
			req.Header.Set("Range", c.bytes)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, content[c.from:c.to]) {
			t.Errorf("%q: %d bytes, %v", c.bytes, len(got), err)
		}
	}
}

// ReadFrom copies what it is given and no more, whatever that is.
func TestReadFrom(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text := strings.Repeat("0123456789", sendChunk/5)
	for name, c := range map[string]struct {
		src  func() io.Reader
		want int
	}{
		"plain":          {func() io.Reader { return strings.NewReader(text) }, len(text)},
		"limited":        {func() io.Reader { return io.LimitReader(strings.NewReader(text), sendChunk+7) }, sendChunk + 7},
		"limit too high": {func() io.Reader { return io.LimitReader(strings.NewReader(text[:100]), 1<<40) }, 100},
		"nothing":        {func() io.Reader { return io.LimitReader(strings.NewReader(text), 0) }, 0},
	} {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan int64, 1)
		src := c.src()
		go func() {
			n, err := (&conn{server.(*net.TCPConn), brisk.begin()}).ReadFrom(src)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			server.Close()
			sent <- n
		}()
		got, err := io.ReadAll(client)
		if n := <-sent; err != nil || int(n) != c.want || string(got) != text[:c.want] {
			t.Errorf("%s: %d told, %d came, %v", name, n, len(got), err)
		}
		if lr, ok := src.(*io.LimitedReader); ok && name == "limited" && lr.N != 0 {
			t.Errorf("%s: %d are said to be left", name, lr.N)
		}
		client.Close()
	}
}

// pair writes a certificate for 127.0.0.1 with the name, and its key.
func pair(t *testing.T, dir, name string) *config.TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := &config.TLS{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for file, block := range map[string]*pem.Block{files.Cert: {Type: "CERTIFICATE", Bytes: der}, files.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		write(t, file+".new", string(pem.EncodeToMemory(block)))
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestTLSAndItsRenewal(t *testing.T) {
	dir := t.TempDir()
	files := pair(t, dir, "first")
	log := newLog(io.Discard, config.Log{})
	tc, err := tlsConfig(files, log)
	if err != nil {
		t.Fatal(err)
	}
	addr := listen(t, brisk, tc, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, r.Proto, " ", n)
	}))
	ask := func(protocol, want string) {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: new(http.Protocols), DisableKeepAlives: true}
		tr.Protocols.SetHTTP1(protocol == "HTTP/1.1")
		tr.Protocols.SetHTTP2(protocol == "HTTP/2.0")
		resp, err := (&http.Client{Transport: tr}).Post("https://"+addr+"/", "", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != protocol+" 4" {
			t.Errorf("%s, %v", got, err)
		}
		if name := resp.TLS.PeerCertificates[0].Subject.CommonName; name != want {
			t.Errorf("the certificate is that of %s, want %s", name, want)
		}
	}
	ask("HTTP/1.1", "first")
	ask("HTTP/2.0", "first")
	pair(t, dir, "second")
	ask("HTTP/2.0", "second")
	write(t, files.Key, "no key")
	ask("HTTP/1.1", "second")
}

// A stream of HTTP/2 can stall alone.
func TestStalledStreamIsCut(t *testing.T) {
	tc, err := tlsConfig(pair(t, t.TempDir(), "x"), newLog(io.Discard, config.Log{}))
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	addr := listen(t, pace{100 * time.Millisecond, 10 << 20}, tc, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" {
			fmt.Fprint(w, "quick")
			return
		}
		_, err := io.Copy(w, io.LimitReader(zeros{}, 1<<30))
		wrote <- err
	}))
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	resp, err := client.Get("https://" + addr + "/slow") // and read nothing of it
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	select {
	case err := <-wrote:
		if err == nil {
			t.Error("all of it was taken")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a stream that nobody reads is waited for")
	}
	testutil.Eventually(t, 10*time.Second, "other streams go on", func() bool {
		resp, err := client.Get("https://" + addr + "/quick")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
