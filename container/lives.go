package container

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/restart"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// lives holds what is known of containers only while this daemon runs. It is
// safe for concurrent use; the zero value is empty.
type lives struct {
	mu   sync.Mutex
	byID map[string]*live
}

// live is that of one container.
type live struct {
	tries restart.Tries // of the restart policy

	mu      sync.Mutex
	run     *run    // the present one; nil when none
	pending []*seat // clients that attached before the start
	waiters map[*waiter]struct{}
}

// run is one run of a container. Its fields are guarded by live.mu.
type run struct {
	keeper  *supervise.Keeper // connection to the supervising process
	refused error             // why there is none although the container runs
	over    bool              // its end is on record
	ended   chan struct{}     // closed when the run is over and recorded, and its end was told of
}

// of is that of a container that is there.
func (l *lives) of(id string) *live {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.byID[id]
	if found == nil {
		found = &live{waiters: map[*waiter]struct{}{}}
		if l.byID == nil {
			l.byID = map[string]*live{}
		}
		l.byID[id] = found
	}
	return found
}

// find is that of a container that may have been removed; nil if nothing is
// known.
func (l *lives) find(id string) *live {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id]
}

// forget drops what is known of a container that is removed, and returns it; nil
// if that was nothing.
func (l *lives) forget(id string) *live {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.byID[id]
	delete(l.byID, id)
	return found
}

// letGo drops the connections to all supervising processes.
func (l *lives) letGo() {
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.byID))
	l.mu.Unlock()
	for _, one := range all {
		one.letGo()
	}
}

// running returns the supervising process of a container that runs, and what is
// closed when the run is over and recorded.
func (l *lives) running(r Record) (*supervise.Keeper, <-chan struct{}, error) {
	run := l.find(r.ID).present()
	switch {
	case run.ended == nil && r.State == record.Restarting:
		return nil, nil, fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", r.ID)
	case run.ended == nil:
		return nil, nil, notRunning(r)
	case run.keeper == nil:
		return nil, nil, run.refused
	}
	return run.keeper, run.ended, nil
}

func notRunning(r Record) error {
	return fault.New(fault.Conflict, "container %s is not running", r.ID)
}

// over is closed when the container's present run is over, already so when
// there is none.
func (l *lives) over(id string) <-chan struct{} {
	if run := l.find(id).present(); run.ended != nil {
		return run.ended
	}
	done := make(chan struct{})
	close(done)
	return done
}

// present is the present run as it is now, the zero run when there is none.
func (l *live) present() run {
	if l == nil {
		return run{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.run == nil {
		return run{}
	}
	return *l.run
}

// begin makes a run the present one; without a keeper it is out of reach, for
// the given reason. It returns the clients that attached in the meantime; later
// ones find the keeper.
func (l *live) begin(keeper *supervise.Keeper, refused error) (r *run, late []attachment) {
	r = &run{keeper: keeper, refused: refused, ended: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run = r
	if keeper != nil {
		late = l.takeLateLocked()
	}
	return r, late
}

// end tells that a run is over and recorded. By then another may have begun.
func (l *live) end(r *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(r.ended)
	if l.run == r {
		l.run = nil
	}
}

// letGo drops the connection to the supervising process.
func (l *live) letGo() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.run != nil && l.run.keeper != nil {
		l.run.keeper.Close()
	}
	l.tries.CallOff()
}

// told waits until the end of a run that is on record has been told of too, so
// that nothing comes before its events.
func (l *live) told(ctx context.Context) error {
	run := l.present()
	if run.ended == nil {
		return nil
	}
	select {
	case <-run.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settleTime bounds the wait for the end of a run whose process is gone.
const settleTime = 2 * time.Second

// ofRun gives an error of the supervising process the sense that the end of the
// run has given it: one that is gone has mostly ended with its container.
func ofRun(r Record, ended <-chan struct{}, err error) error {
	if !errors.Is(err, fault.Unavailable) {
		return err
	}
	select {
	case <-ended:
		return notRunning(r)
	case <-time.After(settleTime):
		return err
	}
}
