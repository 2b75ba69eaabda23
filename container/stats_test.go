package container

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/tasks"
)

// statsService is a service with one container that does not run, and nothing
// else but its statistics.
func statsService(t *testing.T) *Service {
	st, err := record.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	recordtest.Add(t, st, "aa11", "one", false)
	s := &Service{store: st, tasks: tasks.New()}
	s.stats = newStats(s, &cgroupfs.Layout{})
	return s
}

// Clients share a reader, and none is left when they have gone.
func TestReaderIsShared(t *testing.T) {
	s := statsService(t)
	a, ra := s.stats.listen("aa11")
	if first := <-a.samples; first.Name != "/one" || first.ID != "aa11" {
		t.Errorf("%+v", first)
	}
	b, rb := s.stats.listen("aa11")
	if ra != rb || len(s.stats.readers) != 1 {
		t.Error("two readers of one container")
	}
	s.stats.leave("aa11", ra, a)
	if len(s.stats.readers) != 1 {
		t.Error("the reader has gone before its last client")
	}
	s.stats.leave("aa11", rb, b)
	if len(s.stats.readers) != 0 {
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
	s := statsService(t)
	l := &listener{make(chan wire.StatsResponse, 1)}
	r := &reader{ended: make(chan struct{}), listeners: map[*listener]struct{}{l: {}}}
	s.stats.readers["aa11"] = r
	sample := func(second int, used uint64) wire.StatsResponse {
		w := wire.StatsResponse{Read: time.Unix(int64(second), 0)}
		w.CPUStats.CPUUsage.TotalUsage = used
		return w
	}
	for second, used := range []uint64{0, 100, 300, 50} {
		if !s.stats.tell("aa11", r, sample(second+1, used)) {
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
	s.stats.leave("aa11", r, l)
	if s.stats.tell("aa11", r, sample(9, 9)) {
		t.Error("somebody listens")
	}
}

func TestStreamEndsWithItsContainer(t *testing.T) {
	s := statsService(t)
	ended := make(chan error, 1)
	seen := make(chan struct{}, 100)
	go func() {
		ended <- s.stats.Read(context.Background(), "one", StatsOptions{Stream: true}, func(wire.StatsResponse) error { seen <- struct{}{}; return nil })
	}()
	<-seen
	_, _ = s.store.Remove("aa11")
	s.stats.forget("aa11")
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream goes on")
	}
	if err := s.stats.Read(context.Background(), "one", StatsOptions{}, nil); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}
