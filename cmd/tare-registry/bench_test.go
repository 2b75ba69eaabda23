package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
)

// BenchmarkServed sets all that a request goes through beside the least that
// net/http can do for the same bytes. cpu-ns/op is what client, kernel and
// server spend together.
func BenchmarkServed(b *testing.B) {
	s, err := dir.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	manifest, layer := bytes.Repeat([]byte("m"), 1500), make([]byte, 1<<20)
	d, l := digest.FromBytes(manifest), digest.FromBytes(layer)
	ctx := context.Background()
	m := storage.Manifest{Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(manifest))}, Data: manifest}
	if err := s.PutManifest(ctx, "library/image", m, storage.NewTag{Name: "latest"}); err != nil {
		b.Fatal(err)
	}
	up, err := s.CreateUpload(ctx, "library/image", digest.SHA256)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := up.Append(ctx, bytes.NewReader(layer)); err != nil {
		b.Fatal(err)
	}
	if err := up.Commit(ctx, l); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "layer")
	if err := os.WriteFile(file, layer, 0o600); err != nil {
		b.Fatal(err)
	}
	bare := http.NewServeMux()
	bare.HandleFunc("/manifest", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Content-Length", strconv.Itoa(len(manifest)))
		w.Write(manifest)
	})
	bare.HandleFunc("/blob", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	c := config.Default()
	p := pace{time.Duration(c.HTTP.Stall), float64(c.HTTP.MinRate)}
	log := slog.New(slog.DiscardHandler)
	plain := &http.Server{Handler: bare}
	whole := newServer(c.HTTP, p.guard(routes(c, s, nil, nil, log)), nil, log)
	b.Run("manifest/bare", func(b *testing.B) { served(b, plain, pace{}, "/manifest", len(manifest)) })
	b.Run("manifest/tag", func(b *testing.B) { served(b, whole, p, "/v2/library/image/manifests/latest", len(manifest)) })
	b.Run("manifest/digest", func(b *testing.B) { served(b, whole, p, "/v2/library/image/manifests/"+string(d), len(manifest)) })
	b.Run("blob/bare", func(b *testing.B) { served(b, plain, pace{}, "/blob", len(layer)) })
	b.Run("blob/served", func(b *testing.B) { served(b, whole, p, "/v2/library/image/blobs/"+string(l), len(layer)) })
}

// served has one client ask for the path again and again; no pace is that of
// a listener of net.
func served(b *testing.B, s *http.Server, p pace, path string, size int) {
	list, err := bind(b.Context(), []string{"127.0.0.1:0"}, p)
	if err != nil {
		b.Fatal(err)
	}
	l := list[0]
	if p == (pace{}) {
		l = l.(listener).TCPListener
	}
	go s.Serve(l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: registry\r\nAccept: " + ocispec.MediaTypeImageManifest + "\r\nUser-Agent: benchmark\r\n\r\n")
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	before := spent(b)
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		n, err := conn.Read(buf)
		for err == nil && bytes.Index(buf[:n], []byte("\r\n\r\n")) < 0 {
			var k int
			k, err = conn.Read(buf[n:])
			n += k
		}
		if err != nil || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
			b.Fatalf("%v: %s", err, buf[:n])
		}
		rest := int64(bytes.Index(buf[:n], []byte("\r\n\r\n")) + 4 + size - n)
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.LimitReader(conn, rest)}, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(spent(b)-before)/float64(b.N), "cpu-ns/op")
}

func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
