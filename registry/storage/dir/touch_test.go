package dir

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
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
	touched.began = touched.began.Add(-time.Hour)
	same(t, touched.due(first, time.Hour), true)
}
