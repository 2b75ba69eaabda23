package bucket

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/storagetest"
	"github.com/tarehq/tare/test/s3"
)

// interrupted is a line on which something else happens before one request.
type interrupted struct {
	base http.RoundTripper
	left atomic.Int64
	by   func()
}

func (i *interrupted) RoundTrip(r *http.Request) (*http.Response, error) {
	if i.left.Add(-1) == 0 && i.by != nil {
		i.by()
	}
	return i.base.RoundTrip(r)
}

// TestInTheMidst has, before each request of a collection without a grace, an
// image pushed at another registry, and the other way round. A manifest that
// was acknowledged is whole.
func TestInTheMidst(t *testing.T) {
	server := s3.Start(t, "registry")
	push := func(t *testing.T, s *Storage) bool {
		m, err := tryOnce(t, s)
		if err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", m.Descriptor.Digest, err)
		}
		return err == nil
	}
	collect := func(t *testing.T, s *Storage) bool {
		if _, err := s.Collect(t.Context(), 0); err != nil {
			t.Error(err)
		}
		return true
	}
	remount := func(t *testing.T, s *Storage) bool { // of the blobs that are due
		m := storagetest.Image(describe(small), describe(small[1:]))
		for _, b := range m.Blobs {
			if _, err := s.Mount(t.Context(), "b", "a", b.Digest); err != nil {
				return false
			}
		}
		return s.PutManifest(t.Context(), "b", m, storage.NewTag{Name: "v"}) == nil
	}
	remove := func(t *testing.T, s *Storage) bool {
		m := storagetest.Image(describe(small), describe(small[1:]))
		return s.DeleteManifest(t.Context(), "a", m.Descriptor.Digest, nil) == nil
	}
	expire := func(t *testing.T, s *Storage) bool {
		d := storagetest.Image(describe(small), describe(small[1:])).Descriptor.Digest
		m, err := s.Manifest(t.Context(), "a", d)
		return err == nil && s.ExpireManifest(t.Context(), "a", d, m.Updated, 0) == nil
	}
	for name, c := range map[string]struct {
		first, second func(*testing.T, *Storage) bool
	}{
		"push within a collection":    {collect, push},
		"mount within a collection":   {collect, remount},
		"collection within a push":    {push, collect},
		"collection within a mount":   {remount, collect},
		"deletion within a push":      {push, remove},
		"push within a deletion":      {remove, push},
		"collection within a removal": {remove, collect},
		"expiry within a push":        {push, expire},
		"push within an expiry":       {expire, push},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			successes := 0
			for n := int64(1); ; n++ {
				config := configFor(t, server)
				other := openAt(t, config, nil)
				m := image(t, other, "a")
				switch name {
				case "push within a deletion", "collection within a removal":
					put(t, other, m, storage.NewTag{Name: "v"})
				case "expiry within a push", "push within an expiry":
					put(t, other, m)
				}
				var line *interrupted
				s := openAt(t, config, func(base http.RoundTripper) http.RoundTripper {
					line = &interrupted{base: base}
					line.by = func() {
						if c.second(t, other) {
							successes++
						}
					}
					return line
				})
				line.left.Store(n)
				if c.first(t, s) {
					successes++
				}
				last := line.left.Load() > 0
				next := openAt(t, config, nil)
				whole(t, next)
				if strings.Contains(name, "expiry") && !last { // which takes no tag
					if _, err := other.Tag(t.Context(), "a", "v"); err != nil {
						t.Error(err)
					}
				}
				empty(t, next)
				if t.Failed() {
					t.Fatalf("before request %d", n)
				}
				if last {
					break
				}
			}
			if successes == 0 {
				t.Error("nothing of it ever succeeded")
			}
		})
	}
}

// tryOnce pushes an image.
func tryOnce(t *testing.T, s *Storage) (storage.Manifest, error) {
	for _, b := range [][]byte{small, small[1:]} {
		if err := pushBlob(t.Context(), s, "a", b); err != nil {
			return storage.Manifest{}, err
		}
	}
	m := storagetest.Image(describe(small), describe(small[1:]))
	return m, s.PutManifest(t.Context(), "a", m, storage.NewTag{Name: "v"})
}
