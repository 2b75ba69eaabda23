package keylock

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestLockExcludesSameKeyOnly(t *testing.T) {
	var l Locks[string]
	unlock, err := l.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if other, err := l.Lock(t.Context(), "b"); err != nil {
		t.Fatal(err)
	} else {
		other()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Fatalf("second owner of a held key: %v", err)
	}
	unlock()
	if len(l.locks) != 0 {
		t.Fatalf("%d locks left behind", len(l.locks))
	}
}

func TestLockCounts(t *testing.T) {
	var l Locks[int]
	var wg sync.WaitGroup
	n := 0
	for range 64 {
		wg.Go(func() {
			unlock, err := l.Lock(context.Background(), 1)
			if err != nil {
				t.Error(err)
				return
			}
			n++
			unlock()
		})
	}
	wg.Wait()
	if n != 64 || len(l.locks) != 0 {
		t.Fatalf("n=%d, %d locks left", n, len(l.locks))
	}
}
