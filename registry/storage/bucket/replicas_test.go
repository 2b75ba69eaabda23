package bucket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
	"github.com/tarehq/tare/test/s3"
)

// rounds is how many images each client pushes in TestReplicas, with TARE_SOAK that many.
func rounds() int {
	if soak, err := strconv.Atoi(os.Getenv("TARE_SOAK")); err == nil {
		return soak
	}
	return 6
}

// TestReplicas has several registries push, delete and collect without a grace
// in one bucket. What was acknowledged and not deleted is whole.
func TestReplicas(t *testing.T) {
	config := configFor(t, s3.Start(t, "registry"))
	replicas := []*Storage{openAt(t, config, nil), openAt(t, config, nil)}
	stop := make(chan struct{})
	var pushers, collectors sync.WaitGroup
	var mu sync.Mutex
	kept := map[string]storage.Manifest{}
	for n := range 4 {
		pushers.Go(func() {
			for i := range rounds() {
				s := replicas[(n+i)%2]
				repo := fmt.Sprintf("%s/%d", []string{"kept", "gone"}[i%2], n%2)
				m, err := tryPush(t, s, repo, uint64(i/2%3), fmt.Sprint("v", i))
				if err != nil {
					continue
				}
				if i%2 == 0 {
					mu.Lock()
					kept[repo+string(m.Descriptor.Digest)] = m
					mu.Unlock()
					continue
				}
				if err := replicas[n%2].DeleteManifest(t.Context(), repo, m.Descriptor.Digest, nil); err != nil && !errors.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	for _, s := range replicas {
		collectors.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Collect(t.Context(), 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	pushers.Wait()
	close(stop)
	collectors.Wait()
	if len(kept) == 0 {
		t.Error("nothing was put")
	}
	s := openAt(t, config, nil)
	for key, m := range kept {
		storagetest.Whole(t, s, strings.TrimSuffix(key, string(m.Descriptor.Digest)), m.Descriptor.Digest)
	}
	whole(t, s)
	collectAll(t, s)
	whole(t, s)
	empty(t, s)
}

// tryPush pushes an image. Without a grace its blobs may be collected on the way.
func tryPush(t *testing.T, s *Storage, repo string, seed uint64, tag string) (storage.Manifest, error) {
	blobs := [][]byte{storagetest.Bytes(seed, 100), storagetest.Bytes(seed+100, 100_000)}
	var m storage.Manifest
	var err error
	for range 20 {
		for _, b := range blobs {
			if err = pushBlob(t.Context(), s, repo, b); err != nil {
				break
			}
		}
		if err == nil {
			m = storagetest.Image(describe(blobs[0]), describe(blobs[1]))
			if err = s.PutManifest(t.Context(), repo, m, storage.NewTag{Name: tag}); err == nil {
				return m, nil
			}
		}
		kind := fault.KindOf(err)
		if kind != fault.NotFound && kind != fault.Conflict && !strings.Contains(err.Error(), "collected") {
			t.Error(err)
		}
	}
	return m, err
}

// TestUploadElsewhere goes on with an upload at another registry.
func TestUploadElsewhere(t *testing.T) {
	config := configFor(t, s3.Start(t, "registry"))
	replicas := []*Storage{openAt(t, config, nil), openAt(t, config, nil)}
	u, err := replicas[0].CreateUpload(t.Context(), "a", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	id := u.ID()
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	data := storagetest.Bytes(5, 3*partSize+4321)
	rest := data
	for i, size := range []int{1, 100_000, partSize, partSize + 1, 10, partSize - 10, len(data)} {
		u, err := replicas[i%2].OpenUpload(t.Context(), "a", id)
		if err != nil {
			t.Fatal(err)
		}
		if u.Size() != int64(len(data)-len(rest)) {
			t.Fatalf("%d bytes instead of %d", u.Size(), len(data)-len(rest))
		}
		size = min(size, len(rest))
		if _, err := u.Append(t.Context(), bytes.NewReader(rest[:size])); err != nil {
			t.Fatal(err)
		}
		rest = rest[size:]
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Two at once: one of them is told.
	first, err := replicas[0].OpenUpload(t.Context(), "a", id)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := replicas[1].OpenUpload(t.Context(), "a", id)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Commit(t.Context(), digest.FromBytes(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Append(t.Context(), strings.NewReader("x")); !errors.Is(err, fault.Conflict) {
		t.Errorf("what was written to an upload that is over: %v", err)
	}
	if got := storagetest.Read(t, replicas[1], "a", digest.FromBytes(data)); !bytes.Equal(got, data) {
		t.Error("the blob is another one")
	}
}

// TestRanges reads parts of a blob, and by the address that is given to clients.
func TestRanges(t *testing.T) {
	s := openAt(t, configFor(t, s3.Start(t, "registry")), nil)
	data := storagetest.Bytes(5, 300_000)
	d := storagetest.Push(t, s, "a", data).Digest
	b, err := s.Blob(t.Context(), "a", d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Content.Close()
	for _, at := range []int64{0, 299_999, 17, 300_000, 100_000} {
		if _, err := b.Content.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.LimitReader(b.Content, 1000))
		if err != nil || !bytes.Equal(got, data[at:min(at+1000, 300_000)]) {
			t.Errorf("at %d: %d bytes, %v", at, len(got), err)
		}
	}
	address, err := b.Location(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got, err := io.ReadAll(response.Body); err != nil || !bytes.Equal(got, data) {
		t.Errorf("from %s: %d bytes, %v", address, len(got), err)
	}
}

// TestAway has the server gone, and the wrong credentials.
func TestAway(t *testing.T) {
	server := s3.Start(t)
	config := configFor(t, server)
	if _, err := Open(t.Context(), config); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "no bucket registry") {
		t.Errorf("without a bucket: %v", err)
	}
	config.Create, config.Prefix = true, ""
	s := openAt(t, config, nil)
	m := storagetest.PushImage(t, s, "a", 1, "v")
	wrong := config
	wrong.SecretKey += "x"
	if _, err := Open(t.Context(), wrong); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("with the wrong credentials: %v", err)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := server.Down(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context()); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without the server: %v", err)
	}
	if _, err := s.Manifest(t.Context(), "a", m.Descriptor.Digest); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without the server: %v", err)
	}
	if err := server.Up(); err != nil {
		t.Fatal(err)
	}
	storagetest.Whole(t, s, "a", m.Descriptor.Digest)
}

// unconditional is a server that knows no conditions.
type unconditional map[string][]byte

func (u unconditional) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Method == http.MethodPut {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		u[r.URL.Path] = data
	}
	data, ok := u[r.URL.Path]
	w.Header().Set("ETag", `"`+digest.FromBytes(data).Encoded()+`"`)
	w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPut:
		w.Header().Set("Content-Length", "0")
	default:
		_, _ = w.Write(data)
	}
	return w.Result(), nil
}

// TestServerMustCompare refuses servers that would lose blobs.
func TestServerMustCompare(t *testing.T) {
	config := Config{Endpoint: "s3.example.org", Bucket: "registry", Region: "x", AccessKey: "a", SecretKey: "b", PathStyle: true}
	server := unconditional{}
	for range 2 {
		if _, err := open(t.Context(), config, server); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "conditional") {
			t.Errorf("it was opened: %v", err)
		}
	}
	if format := server["/registry/format"]; string(format) != string(formatNow) {
		t.Errorf("it left the format %q", format)
	}
}

// TestFewRequests counts what is asked of the bucket.
func TestFewRequests(t *testing.T) {
	var line *interrupted
	s := openAt(t, configFor(t, s3.Start(t, "registry")), func(base http.RoundTripper) http.RoundTripper {
		line = &interrupted{base: base}
		return line
	})
	m := image(t, s, "a")
	d := m.Descriptor.Digest
	count := func(what string, want int64, f func() error) {
		t.Helper()
		line.left.Store(0)
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := -line.left.Load(); got != want {
			t.Errorf("%s takes %d requests instead of %d", what, got, want)
		}
	}
	blob := func() error { _, err := s.Blob(t.Context(), "a", m.Blobs[0].Digest); return err }
	count("a new blob", 8, func() error { return pushBlob(t.Context(), s, "a", []byte("new")) })
	count("a blob that was pushed here", 0, blob)
	count("a manifest of two blobs with a tag", 10, func() error { return s.PutManifest(t.Context(), "a", m, storage.NewTag{Name: "v"}) })
	for range 2 {
		count("to read a manifest", 1, func() error { _, err := s.Manifest(t.Context(), "a", d); return err })
		count("to read a tag", 1, func() error { _, err := s.Tag(t.Context(), "a", "v"); return err })
	}
	s.places.clear()
	count("a blob", 1, blob)
	count("a blob again", 0, blob)
}

// TestFoundStays renews a blob that is found when it would soon be due.
func TestFoundStays(t *testing.T) {
	t.Parallel()
	config := configFor(t, s3.Start(t, "registry"))
	config.Grace = 4 * time.Second
	s, other := openAt(t, config, nil), openAt(t, config, nil)
	found, lost := storagetest.Push(t, s, "a", small).Digest, storagetest.Push(t, s, "a", small[1:]).Digest
	deadline := time.Now().Add(time.Minute)
	for {
		if _, err := other.Blob(t.Context(), "a", found); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Collect(t.Context(), config.Grace); err != nil {
			t.Fatal(err)
		}
		list, err := other.refs(t.Context(), "a", lost)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what nobody asked for stays")
		}
	}
	storagetest.Read(t, openAt(t, config, nil), "a", found)
}

func describe(data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
