// Package stats tells what containers use, as long as somebody asks.
package stats

import (
	"context"
	"sync"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/tasks"
)

// Sampler tells what containers use. Clients who ask for one container at the
// same time share its reader, which looks once a second; nothing runs when
// nobody asks, and nothing here waits for an operation on a container. A Sampler is
// safe for concurrent use.
type Sampler struct {
	store   *record.Store
	bundles string // the directory of those that run, each below it by its ID
	groups  *cgroupfs.Layout
	tasks   *tasks.Tasks
	memory  uint64 // of the machine, in bytes

	mu      sync.Mutex
	readers map[string]*reader // by the container's ID
}

// New makes it for the containers of a store.
func New(store *record.Store, bundles string, groups *cgroupfs.Layout, tasks *tasks.Tasks) *Sampler {
	return &Sampler{store: store, bundles: bundles, groups: groups, tasks: tasks, memory: machineMemory(), readers: map[string]*reader{}}
}

// sampling is the time between two looks.
const sampling = time.Second

// reader looks at one container as long as somebody listens.
type reader struct {
	ended     chan struct{} // closed when the container is removed
	listeners map[*listener]struct{}
	last      *wire.StatsResponse // the newest sample; nil before the first
}

// listener is one client. A sample that it does not take in time is replaced by
// the next.
type listener struct{ samples chan wire.StatsResponse }

// Options as in GET /containers/{id}/stats: a sample each second until the
// container is removed, or one with the sample of a second before, or OneShot
// one by itself, at once.
type Options struct{ Stream, OneShot bool }

// Read gives samples of a container to visit, whose error ends it. Without
// Stream a container that does not run has a sample of its names alone.
func (t *Sampler) Read(ctx context.Context, nameOrID string, o Options, visit func(wire.StatsResponse) error) error {
	r, err := t.store.Find(nameOrID)
	if err != nil {
		return err
	}
	if o.Stream && o.OneShot {
		return fault.New(fault.Invalid, "cannot have stream=true and one-shot=true")
	}
	if !o.Stream && (o.OneShot || !r.State.Up()) {
		return visit(t.sample(r))
	}
	l, reader := t.listen(r.ID)
	defer t.leave(r.ID, reader, l)
	for {
		select {
		case s := <-l.samples:
			if !o.Stream && s.PreRead.IsZero() && !s.Read.IsZero() {
				continue // the next one can be compared with it
			}
			if err := visit(s); err != nil || !o.Stream {
				return err
			}
		case <-reader.ended:
			return nil
		case <-t.tasks.Closing():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// listen joins the container's reader, or begins one.
func (t *Sampler) listen(id string) (*listener, *reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &listener{make(chan wire.StatsResponse, 1)}
	r := t.readers[id]
	if r == nil {
		r = &reader{ended: make(chan struct{}), listeners: map[*listener]struct{}{}}
		t.readers[id] = r
		t.tasks.Go(func() { t.look(id, r) })
	} else if r.last != nil && time.Since(r.last.Read) < sampling {
		l.samples <- *r.last
	}
	r.listeners[l] = struct{}{}
	return l, r
}

// leave ends the reader with its last listener.
func (t *Sampler) leave(id string, r *reader, l *listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(r.listeners, l)
	if len(r.listeners) == 0 && t.readers[id] == r {
		delete(t.readers, id)
	}
}

// Forget ends the reader of a container that is removed.
func (t *Sampler) Forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.readers[id]; r != nil {
		delete(t.readers, id)
		close(r.ended)
	}
}

// look samples the container until nobody listens any more.
func (t *Sampler) look(id string, r *reader) {
	ticker := time.NewTicker(sampling)
	defer ticker.Stop()
	for {
		found, err := t.store.Find(id)
		if err != nil {
			t.Forget(id)
			return
		}
		if !t.tell(id, r, t.sample(found)) {
			return
		}
		select {
		case <-ticker.C:
		case <-r.ended:
			return
		case <-t.tasks.Closing():
			return
		}
	}
}

// tell gives all listeners the sample beside the one before it, of the same
// run. false means that there is nobody.
func (t *Sampler) tell(id string, r *reader, s wire.StatsResponse) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.readers[id] != r {
		return false
	}
	if before := r.last; before != nil && !s.Read.IsZero() && before.CPUStats.CPUUsage.TotalUsage <= s.CPUStats.CPUUsage.TotalUsage {
		s.PreRead, s.PreCPUStats = before.Read, before.CPUStats
	}
	r.last = &s
	for l := range r.listeners {
		select {
		case <-l.samples:
		default:
		}
		l.samples <- s
	}
	return true
}
