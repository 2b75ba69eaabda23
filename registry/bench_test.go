package registry

import (
	"bytes"
	"context"
	"io"
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
	"github.com/tarehq/tare/registry/storage"
)

// The benchmarks set the handlers beside the least that net/http can do for the
// same bytes. ns/op is the time of one client that waits for each answer;
// cpu-ns/op is what client, kernel and server spend together.

func benchmark(b *testing.B, h http.Handler, path string, size int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(l)
	defer s.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: registry\r\nAccept: " + ocispec.MediaTypeImageManifest + "\r\nUser-Agent: benchmark\r\n\r\n")
	buf := make([]byte, 256<<10)
	b.SetBytes(size)
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if err := readAnswer(conn, buf, size); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// readAnswer reads an answer of 200 with a body of the size, at the least cost.
func readAnswer(conn net.Conn, buf []byte, size int64) error {
	n := 0
	for {
		m, err := conn.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		end := bytes.Index(buf[:n], []byte("\r\n\r\n"))
		if end < 0 {
			continue
		}
		if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
			return os.ErrInvalid
		}
		for left := size - int64(n-end-4); left > 0; left -= int64(m) {
			if m, err = conn.Read(buf); err != nil {
				return err
			}
		}
		return nil
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkManifest(b *testing.B) {
	data := image("{}", "layer", func(m *ocispec.Manifest) {
		for range 8 {
			m.Layers = append(m.Layers, m.Layers[0])
		}
	})
	store := newMemory()
	ctx := context.Background()
	d := digest.FromBytes(data)
	m := storage.Manifest{Descriptor: ocispec.Descriptor{MediaType: ociImage, Digest: d, Size: int64(len(data))}, Data: data}
	if err := store.PutManifest(ctx, "library/image", m, storage.NewTag{Name: "latest"}); err != nil {
		b.Fatal(err)
	}
	h := New(Config{Storage: store})
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ociImage)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	})
	size := int64(len(data))
	b.Run("bare", func(b *testing.B) { benchmark(b, bare, "/v2/library/image/manifests/latest", size) })
	b.Run("tag", func(b *testing.B) { benchmark(b, h, "/v2/library/image/manifests/latest", size) })
	b.Run("digest", func(b *testing.B) { benchmark(b, h, "/v2/library/image/manifests/"+string(d), size) })
}

func BenchmarkBlob(b *testing.B) {
	data := make([]byte, 1<<20)
	store, d := newFiles(b, data)
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(store.dir, d.Encoded()))
	})
	path := "/v2/library/image/blobs/" + string(d)
	b.Run("bare", func(b *testing.B) { benchmark(b, bare, path, 1<<20) })
	b.Run("blob", func(b *testing.B) { benchmark(b, New(Config{Storage: store}), path, 1<<20) })
}

// BenchmarkUpload is what the handlers add to a blob on its way in.
func BenchmarkUpload(b *testing.B) {
	h := New(Config{Storage: &sink{newMemory()}})
	data := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		w := newRecorder()
		req := newRequest("POST", "/v2/a/blobs/uploads/?digest="+string(digest.Canonical)+":"+digest.FromString("").Encoded())
		req.Body = io.NopCloser(bytes.NewReader(data))
		req.ContentLength = int64(len(data))
		if h.ServeHTTP(w, req); w.Code != 201 {
			b.Fatal(w.Body)
		}
	}
}

// sink is a storage whose uploads take bytes and keep none.
type sink struct{ *memory }

type sunk struct {
	storage.Upload
	n int64
}

func (s *sink) CreateUpload(ctx context.Context, repo string, a digest.Algorithm) (storage.Upload, error) {
	u, err := s.memory.CreateUpload(ctx, repo, a)
	return &sunk{Upload: u}, err
}

func (u *sunk) Size() int64 { return u.n }

func (u *sunk) Append(_ context.Context, r io.Reader) (int64, error) {
	n, err := io.Copy(io.Discard, r)
	u.n += n
	return n, err
}
