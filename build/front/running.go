package front

import (
	"context"
	"sync"
	"time"

	"github.com/tarehq/tare/fault"
)

// running is a build that its client follows, and takes part in, by its
// reference.
type running struct {
	ref   string
	tells *recording
	began time.Time

	ready chan struct{} // closed when asks is set, or the build has none
	asks  *asked        // what its client has to make, as a front end
}

// builds are those under way and the last ones that ended.
type builds struct {
	mu      sync.Mutex
	list    map[string]*running
	ended   []string // the oldest first
	changed chan struct{}
}

// keptEnded bounds the builds that are remembered with all that they told, for a
// client that follows late.
const keptEnded = 16

// patience bounds how long something is waited for that the same client is about
// to send on another stream.
const patience = 5 * time.Second

func newBuilds() *builds {
	return &builds{list: map[string]*running{}, changed: make(chan struct{})}
}

// begin takes a reference for a build.
func (b *builds) begin(ref string) (*running, error) {
	if ref == "" {
		return nil, fault.New(fault.Invalid, "a build needs a reference")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.list[ref] != nil {
		return nil, fault.New(fault.Conflict, "the build %s exists already", ref)
	}
	r := &running{ref: ref, tells: newRecording(), began: time.Now(), ready: make(chan struct{})}
	b.list[ref] = r
	close(b.changed)
	b.changed = make(chan struct{})
	return r, nil
}

// end says that a build is over.
func (b *builds) end(r *running) {
	r.tells.end()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = append(b.ended, r.ref)
	if len(b.ended) > keptEnded {
		delete(b.list, b.ended[0])
		b.ended = b.ended[1:]
	}
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
