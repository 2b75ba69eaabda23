package stats

import (
	"context"
	"errors"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/tasks"
)

// idle are the statistics of one container that does not run.
func idle(t *testing.T) *Sampler {
	st := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, st, "aa11", "one", false)
	return New(st, t.TempDir(), &cgroupfs.Layout{}, tasks.New())
}

// Clients share a reader, and none is left when they have gone.
func TestReaderIsShared(t *testing.T) {
	s := idle(t)
	a, ra := s.listen("aa11")
	if first := <-a.samples; first.Name != "/one" || first.ID != "aa11" {
		t.Errorf("%+v", first)
	}
	b, rb := s.listen("aa11")
	if ra != rb || len(s.readers) != 1 {
		t.Error("two readers of one container")
	}
	s.leave("aa11", ra, a)
	if len(s.readers) != 1 {
		t.Error("the reader has gone before its last client")
	}
	s.leave("aa11", rb, b)
	if len(s.readers) != 0 {
		t.Error("a reader without clients is left")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.tasks.Wait(ctx); err != nil {
		t.Error("somebody still looks at a container that nobody asks for")
	}
}

// Samples of one run have the one before them; a new run begins anew. Who is
// slow gets the newest.
func TestTell(t *testing.T) {
	s := idle(t)
	l := &listener{make(chan wire.StatsResponse, 1)}
	r := &reader{ended: make(chan struct{}), listeners: map[*listener]struct{}{l: {}}}
	s.readers["aa11"] = r
	sample := func(second int, used uint64) wire.StatsResponse {
		w := wire.StatsResponse{Read: time.Unix(int64(second), 0)}
		w.CPUStats.CPUUsage.TotalUsage = used
		return w
	}
	for second, used := range []uint64{0, 100, 300, 50} {
		if !s.tell("aa11", r, sample(second+1, used)) {
			t.Fatal("nobody listens")
		}
		switch second {
		case 2:
			if got := <-l.samples; got.PreCPUStats.CPUUsage.TotalUsage != 100 || !got.PreRead.Equal(time.Unix(2, 0)) {
				t.Errorf("%+v", got)
			}
		case 3:
			if got := <-l.samples; !got.PreRead.IsZero() || got.PreCPUStats.CPUUsage.TotalUsage != 0 {
				t.Errorf("a new run: %+v", got)
			}
		}
	}
	s.leave("aa11", r, l)
	if s.tell("aa11", r, sample(9, 9)) {
		t.Error("somebody listens")
	}
}

func TestStreamEndsWithItsContainer(t *testing.T) {
	s := idle(t)
	ended := make(chan error, 1)
	seen := make(chan struct{}, 100)
	go func() {
		ended <- s.Read(context.Background(), "one", Options{Stream: true}, func(wire.StatsResponse) error { seen <- struct{}{}; return nil })
	}()
	<-seen
	_, _ = s.store.Remove("aa11")
	s.Forget("aa11")
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream goes on")
	}
	if err := s.Read(context.Background(), "one", Options{}, nil); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}
