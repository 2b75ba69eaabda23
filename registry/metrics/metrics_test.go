package metrics

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/access"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
	"github.com/tarehq/tare/registry/storage/storagetest"
)

// page is what Prometheus would read.
func page(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func want(t *testing.T, m *Metrics, lines ...string) {
	t.Helper()
	text := page(t, m)
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
}

func TestRequests(t *testing.T) {
	m := New("1.2")
	m.Gauge("things", "Things.", map[string]string{"of": "mine"}, func() float64 { return 7 })
	m.Refused("rate")
	m.Observe(&access.Record{Noun: "manifest", Method: "GET", Status: 200, Out: 10, Took: 2 * time.Millisecond})
	m.Observe(&access.Record{Noun: "manifest", Method: "GET", Status: 206, Out: 1, Took: 2 * time.Millisecond})
	m.Observe(&access.Record{Noun: "upload", Method: "PATCH", Status: 503, In: 5})
	m.Observe(&access.Record{Noun: "other", Method: "INVENTED", Status: 999})
	want(t, m,
		`tare_registry_requests_total{method="GET",noun="manifest",status="2xx"} 2`,
		`tare_registry_requests_total{method="PATCH",noun="upload",status="5xx"} 1`,
		`tare_registry_requests_total{method="other",noun="other",status="other"} 1`,
		`tare_registry_request_seconds_count{method="GET",noun="manifest"} 2`,
		`tare_registry_request_seconds_bucket{method="GET",noun="manifest",le="0.001"} 0`,
		`tare_registry_sent_bytes_total{noun="manifest"} 11`,
		`tare_registry_received_bytes_total{noun="upload"} 5`,
		`tare_registry_refused_total{reason="rate"} 1`,
		`tare_registry_things{of="mine"} 7`,
		`tare_registry_build{version="1.2"} 1`)
}

// The storage that is counted keeps the word of the one below.
func TestStorageContract(t *testing.T) { storagetest.Run(t, maker{map[storage.Storage]string{}}) }

type maker struct{ roots map[storage.Storage]string }

func (m maker) open(t *testing.T, root string) storage.Storage {
	below, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	s := New("").Storage(below)
	m.roots[s] = root
	return s
}

func (m maker) Open(t *testing.T) storage.Storage { return m.open(t, t.TempDir()) }

// Reopen ends it in order: how the directory survives worse is its own test.
func (m maker) Reopen(t *testing.T, s storage.Storage) storage.Storage {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return m.open(t, m.roots[s])
}

// broken is a storage that fails as it is told.
type broken struct {
	storage.Storage
	err error
}

func (b *broken) Tag(context.Context, string, string) (storage.Tag, error) {
	return storage.Tag{}, b.err
}

func (b *broken) CreateUpload(context.Context, string, digest.Algorithm) (storage.Upload, error) {
	return &brokenUpload{}, nil
}

func (b *broken) Collect(context.Context, time.Duration) (storage.Collected, error) {
	return storage.Collected{Blobs: 2, Bytes: 30}, b.err
}

type brokenUpload struct{ storage.Upload }

func (*brokenUpload) Append(_ context.Context, r io.Reader) (int64, error) {
	return io.Copy(io.Discard, r)
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, errors.New("the client has gone") }

func TestStorageFailures(t *testing.T) {
	ctx, m := t.Context(), New("")
	below := &broken{}
	s := m.Storage(below)
	for _, below.err = range []error{nil, fault.New(fault.NotFound, "none"), fault.New(fault.Unavailable, "full"), errors.New("broken"), context.Canceled} {
		if _, err := s.Tag(ctx, "a", "b"); err != below.err {
			t.Errorf("%v became %v", below.err, err)
		}
	}
	below.err = nil
	u, err := s.CreateUpload(ctx, "a", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(ctx, silent{}); err == nil {
		t.Error("no error of the client")
	}
	if _, err := s.Collect(ctx, 0); err != nil {
		t.Error(err)
	}
	want(t, m,
		`tare_registry_storage_operations_total{operation="tag"} 5`,
		`tare_registry_storage_errors_total{operation="tag"} 2`,
		`tare_registry_storage_operations_total{operation="append"} 1`,
		`tare_registry_storage_errors_total{operation="append"} 0`,
		`tare_registry_storage_seconds_count{operation="create_upload"} 1`,
		`tare_registry_collections_total 1`, `tare_registry_collected_bytes_total 30`, `tare_registry_collected_blobs_total 2`)
}

func BenchmarkObserve(b *testing.B) {
	m, r := New(""), &access.Record{Noun: "manifest", Method: "GET", Status: 200, Out: 1000, Took: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(r)
	}
}
