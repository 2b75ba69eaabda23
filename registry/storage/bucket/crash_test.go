package bucket

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
	"github.com/tarehq/tare/test/s3"
)

// cutter is a line that breaks for good at one request, before that is sent or
// after it was carried out.
type cutter struct {
	base  http.RoundTripper
	mu    sync.Mutex
	left  int
	after bool
}

// errCut is one that minio-go does not repeat a request after.
var errCut = x509.UnknownAuthorityError{}

func (c *cutter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.left--
	left := c.left
	c.mu.Unlock()
	if left < 0 || left == 0 && !c.after {
		return nil, errCut
	}
	response, err := c.base.RoundTrip(r)
	if left == 0 && err == nil {
		response.Body.Close()
		return nil, errCut
	}
	return response, err
}

// operation is done by a process that ends in between.
type operation struct {
	before func(t *testing.T, s *Storage)
	do     func(ctx context.Context, s *Storage) error
	step   int // between the requests that are cut, unless there is more time
}

var (
	small = storagetest.Bytes(1, 1000)
	large = storagetest.Bytes(2, partSize+70_000) // a part, and a tail
)

func pushBlob(ctx context.Context, s *Storage, repo string, chunks ...[]byte) error {
	u, err := s.CreateUpload(ctx, repo, digest.SHA256)
	if err != nil {
		return err
	}
	defer u.Close()
	for _, c := range chunks {
		if _, err := u.Append(ctx, bytes.NewReader(c)); err != nil {
			return err
		}
	}
	return u.Commit(ctx, digest.FromBytes(bytes.Join(chunks, nil)))
}

func image(t *testing.T, s *Storage, repo string) storage.Manifest {
	return storagetest.Image(storagetest.Push(t, s, repo, small), storagetest.Push(t, s, repo, small[1:]))
}

func put(t *testing.T, s *Storage, m storage.Manifest, tags ...storage.NewTag) {
	t.Helper()
	if err := s.PutManifest(t.Context(), "a", m, tags...); err != nil {
		t.Fatal(err)
	}
}

func operations() map[string]operation {
	var m storage.Manifest
	ready := func(t *testing.T, s *Storage) { m = image(t, s, "a") }
	there := func(t *testing.T, s *Storage) { m = storagetest.PushImage(t, s, "a", 1, "v", "w") }
	return map[string]operation{
		"small blob": {do: func(ctx context.Context, s *Storage) error { return pushBlob(ctx, s, "a", small) }},
		"large blob": {do: func(ctx context.Context, s *Storage) error {
			return pushBlob(ctx, s, "a", large[:50_000], large[50_000:])
		}},
		"blob that is there": {
			before: func(t *testing.T, s *Storage) { storagetest.Push(t, s, "b", small) },
			do:     func(ctx context.Context, s *Storage) error { return pushBlob(ctx, s, "a", small) },
		},
		"mount": {before: ready, do: func(ctx context.Context, s *Storage) error {
			_, err := s.Mount(ctx, "c", "a", m.Blobs[0].Digest)
			return err
		}},
		"manifest": {before: ready, do: func(ctx context.Context, s *Storage) error {
			return s.PutManifest(ctx, "a", m, storage.NewTag{Name: "v"}, storage.NewTag{Name: "i", Immutable: true})
		}},
		"referrer": {
			before: func(t *testing.T, s *Storage) {
				ready(t, s)
				m = storagetest.Artifact(m.Descriptor, "application/x", m.Blobs[0])
			},
			do: func(ctx context.Context, s *Storage) error { return s.PutManifest(ctx, "a", m) },
		},
		"retag": {
			before: func(t *testing.T, s *Storage) { there(t, s); m = storagetest.PushImage(t, s, "a", 9) },
			do: func(ctx context.Context, s *Storage) error {
				return s.PutManifest(ctx, "a", m, storage.NewTag{Name: "v"})
			},
		},
		"delete manifest": {before: there, do: func(ctx context.Context, s *Storage) error {
			return s.DeleteManifest(ctx, "a", m.Descriptor.Digest, nil)
		}},
		"expire": {
			before: func(t *testing.T, s *Storage) { ready(t, s); put(t, s, m) },
			do: func(ctx context.Context, s *Storage) error {
				now, err := s.Manifest(ctx, "a", m.Descriptor.Digest)
				if err != nil {
					return err
				}
				return s.ExpireManifest(ctx, "a", m.Descriptor.Digest, now.Updated, 0)
			},
		},
		"delete tag":  {before: there, do: func(ctx context.Context, s *Storage) error { return s.DeleteTag(ctx, "a", "v") }},
		"delete blob": {before: ready, do: func(ctx context.Context, s *Storage) error { return s.DeleteBlob(ctx, "a", m.Blobs[0].Digest) }},
		"collect": {
			before: func(t *testing.T, s *Storage) {
				there(t, s)
				if err := s.DeleteManifest(t.Context(), "a", m.Descriptor.Digest, nil); err != nil {
					t.Fatal(err)
				}
				storagetest.PushImage(t, s, "b", 2, "v") // has two of its blobs
				u, err := s.CreateUpload(t.Context(), "a", digest.SHA256)
				if err != nil {
					t.Fatal(err)
				}
				defer u.Close()
				if _, err := u.Append(t.Context(), bytes.NewReader(large)); err != nil {
					t.Fatal(err)
				}
			},
			do:   func(ctx context.Context, s *Storage) error { _, err := s.Collect(ctx, 0); return err },
			step: 9,
		},
	}
}

// TestEndAnywhere ends each operation at each of its requests. What is there
// afterwards is whole, the operation can be repeated, and collections leave nothing.
func TestEndAnywhere(t *testing.T) {
	server := s3.Start(t, "registry")
	t.Run("all", func(t *testing.T) {
		for name, o := range operations() {
			// A cut after one request leaves in the bucket what a cut before the next
			// one does, unless others are under way.
			step, when := max(1, o.step), []bool{false}
			if os.Getenv("TARE_SOAK") != "" {
				step, when = 1, []bool{false, true}
			}
			for _, after := range when {
				t.Run(fmt.Sprint(name, " ", after), func(t *testing.T) {
					t.Parallel()
					n := 1
					for cutAt(t, server, operations()[name], n, after) {
						n += step
					}
					if n < 3 {
						t.Errorf("only %d requests were cut", n)
					}
				})
			}
		}
	})
}

// cutAt cuts the operation at the request, and tells whether that took place.
func cutAt(t *testing.T, server *s3.Server, o operation, n int, after bool) bool {
	t.Helper()
	config := configFor(t, server)
	var line *cutter
	s := openAt(t, config, func(base http.RoundTripper) http.RoundTripper {
		line = &cutter{base: base, left: 1 << 30, after: after}
		return line
	})
	if o.before != nil {
		o.before(t, s)
	}
	line.mu.Lock()
	line.left = n
	line.mu.Unlock()
	err := o.do(t.Context(), s)
	line.mu.Lock()
	cut := line.left <= 0
	line.mu.Unlock()
	if err != nil && !cut {
		t.Fatalf("without a cut: %v", err)
	}
	next := openAt(t, config, nil)
	whole(t, next)
	if err := o.do(t.Context(), next); err != nil && !errors.Is(err, fault.NotFound) {
		t.Errorf("cut at %d, then repeated: %v", n, err)
	}
	whole(t, next)
	collectAll(t, next)
	whole(t, next)
	empty(t, next)
	if t.Failed() {
		t.Fatalf("cut at %d", n)
	}
	return cut
}

// whole checks what can be seen: manifests have their blobs, tags their manifests.
func whole(t *testing.T, s *Storage) {
	t.Helper()
	repos, err := s.Repositories(t.Context(), "", -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range repos {
		manifests, err := s.Manifests(t.Context(), repo, "", -1)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range manifests {
			storagetest.Whole(t, s, repo, d)
		}
		tags, err := s.Tags(t.Context(), repo, "", -1)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tags {
			tag, err := s.Tag(t.Context(), repo, name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Manifest(t.Context(), repo, tag.Target.Digest); err != nil {
				t.Errorf("the tag %s of %s: %v", name, repo, err)
			}
		}
	}
}

// collectAll collects as often as it takes to remove everything.
func collectAll(t *testing.T, s *Storage) {
	t.Helper()
	for range 2 {
		if _, err := s.Collect(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// empty deletes the manifests, and checks that collections leave nothing.
func empty(t *testing.T, s *Storage) {
	t.Helper()
	repos, err := s.Repositories(t.Context(), "", -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range repos {
		manifests, err := s.Manifests(t.Context(), repo, "", -1)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range manifests {
			if err := s.DeleteManifest(t.Context(), repo, d, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	collectAll(t, s)
	for o, err := range s.list(t.Context(), s.key()+"/", "", 1000) {
		if err != nil {
			t.Fatal(err)
		}
		if name := path.Base(o.Key); name != "format" && name != "ready" {
			t.Errorf("%s was left", o.Key)
		}
	}
	parts, err := s.core.ListMultipartUploads(t.Context(), s.config.Bucket, s.below("data"), "", "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range parts.Uploads {
		t.Errorf("the upload %s of %s was left", u.UploadID, u.Key)
	}
}
