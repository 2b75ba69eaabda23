package front

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client/buildid"

	"github.com/tarehq/tare/build/front/bridge"
	"github.com/tarehq/tare/build/front/history"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
)

// running is a build that its client follows, and takes part in, by its
// reference.
type running struct {
	ref    string
	tells  *progress.Record
	record *controlapi.BuildHistoryRecord

	ready chan struct{} // closed when asks is set, or the build has none
	asks  *bridge.Asked // what its client has to make, as a front end
}

// builds are those under way and the last ones that ended.
type builds struct {
	mu      sync.Mutex
	list    map[string]*running
	ended   []string // the oldest first
	changed chan struct{}
	history *history.History
	going   sync.WaitGroup // builds that have begun and not ended
}

// keptEnded bounds the builds that are remembered with all that they told, for a
// client that follows late.
const keptEnded = 16

// patience bounds how long something is waited for that the same client is about
// to send on another stream.
const patience = 5 * time.Second

func newBuilds(dir string) (*builds, error) {
	h, err := history.Open(dir)
	return &builds{list: map[string]*running{}, changed: make(chan struct{}), history: h}, err
}

// begin takes a reference for a build.
func (b *builds) begin(q *controlapi.SolveRequest) (*running, error) {
	ref := q.Ref
	if ref == "" {
		return nil, fault.New(fault.Invalid, "a build needs a reference")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.freeLocked(ref); err != nil {
		return nil, err
	}
	r := &running{ref: ref, tells: progress.New(), record: history.RecordOf(q, time.Now()), ready: make(chan struct{})}
	b.list[ref] = r
	b.going.Add(1)
	if !q.Internal {
		b.history.Began(r.record)
	}
	close(b.changed)
	b.changed = make(chan struct{})
	return r, nil
}

// free tells whether a reference can be taken.
func (b *builds) free(ref string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.freeLocked(ref)
}

func (b *builds) freeLocked(ref string) error {
	if b.list[ref] != nil {
		return fault.New(fault.Conflict, "the build %s exists already", ref)
	}
	return nil
}

// end says that a build is over.
func (b *builds) end(q *controlapi.SolveRequest, r *running, o history.Outcome) {
	defer b.going.Done()
	r.tells.End()
	if !q.Internal {
		b.history.Ended(r.record, r.tells, o, func(err error) { // of which its client need not know
			fmt.Fprintln(os.Stderr, "a build cannot be remembered:", err)
		})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = append(b.ended, r.ref)
	if len(b.ended) > keptEnded {
		delete(b.list, b.ended[0])
		b.ended = b.ended[1:]
	}
}

// close waits for builds, whose clients have gone, to end and to be remembered. One that
// does not hear is left behind.
func (b *builds) close() {
	over := make(chan struct{})
	go func() { b.going.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(endTime):
	}
	b.history.Close()
}

// endTime is how long builds may take to end when the process does.
const endTime = 3 * time.Second

// records are those of the builds under way.
func (b *builds) records() (list []*controlapi.BuildHistoryRecord) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ref, r := range b.list {
		if !slices.Contains(b.ended, ref) {
			list = append(list, r.record)
		}
	}
	return list
}

// find returns a build, which its client may be about to begin.
func (b *builds) find(ctx context.Context, ref string) (*running, error) {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		b.mu.Lock()
		r, changed := b.list[ref], b.changed
		b.mu.Unlock()
		if r != nil {
			return r, nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil, fault.New(fault.NotFound, "no such job %s", ref)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// asked finds the build whose front end the caller is.
func (b *builds) asked(ctx context.Context) (*bridge.Asked, error) {
	ref := buildid.FromIncomingContext(ctx)
	if ref == "" {
		return nil, fault.New(fault.Invalid, "no buildid found in context")
	}
	run, err := b.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	select {
	case <-run.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if run.asks == nil {
		return nil, fault.New(fault.NotFound, "no such job %s", ref)
	}
	return run.asks, nil
}
