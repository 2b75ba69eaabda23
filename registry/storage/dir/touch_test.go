package dir

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/registry/storage/storagetest"
)

// What was touched is not due, and a registry that is only pushed to does not grow.
func TestTouches(t *testing.T) {
	touched := newTouches()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	first := digest.FromString("first")
	touched.began = touched.began.Add(-2 * time.Hour)
	same(t, touched.due(first, time.Hour), true)
	before := heap()
	touched.touch(first)
	for i := range 200_000 {
		touched.touch(digest.FromString(fmt.Sprint(i)))
	}
	if grown := int64(heap() - before); grown > 1<<20 {
		t.Errorf("%d bytes are kept of 200,000 touches", grown)
	}
	for _, d := range []digest.Digest{first, digest.FromString("77")} {
		same(t, touched.due(d, time.Hour), false)
		same(t, touched.due(d, 0), true)
		same(t, len(touched.condemn([]digest.Digest{d}, time.Hour)), 0)
	}
	touched.began = touched.began.Add(-time.Hour - tick) // touches are rounded up, and another's may be the last of the slot
	same(t, touched.due(first, time.Hour), true)
}

// TestKeepBesideExpire: whoever is told that a manifest is there finds it there
// later, though it was about to expire.
func TestKeepBesideExpire(t *testing.T) {
	s, err := Open(t.TempDir())
	ok(t, err)
	defer s.Close()
	image := storagetest.PushImage(t, s, "a", 1)
	d := image.Descriptor.Digest
	s.found.mu.Lock()
	s.found.began = s.found.began.Add(-2 * time.Hour) // all of it was long ago
	s.found.mu.Unlock()
	for n := range 200 {
		ok(t, s.PutManifest(t.Context(), "a", image))
		m, err := s.Manifest(t.Context(), "a", d)
		ok(t, err)
		s.found.mu.Lock()
		*s.found.slot(d) = 0
		s.found.mu.Unlock()
		var both sync.WaitGroup
		var kept, expired error
		both.Go(func() { kept = s.KeepManifest(t.Context(), "a", d) })
		both.Go(func() { expired = s.ExpireManifest(t.Context(), "a", d, m.Updated, time.Hour) })
		both.Wait()
		if (kept == nil) == (expired == nil) {
			t.Fatalf("round %d: kept: %v, expired: %v", n, kept, expired)
		}
	}
}
