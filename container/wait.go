package container

import (
	"context"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

// waiter is one client that waits for a container.
type waiter struct {
	condition wire.WaitCondition
	answer    chan wire.WaitResponse // holds one
	past      *run                   // one that was over when the waiting began: its end is not meant
}

// Wait registers for an end of the container and returns at once; the answer
// comes on the channel. The default condition is "not-running", which a
// container that is not running meets right away.
func (s *Service) Wait(ctx context.Context, nameOrID string, condition wire.WaitCondition) (<-chan wire.WaitResponse, error) {
	switch condition {
	case "":
		condition = wire.WaitConditionNotRunning
	case wire.WaitConditionNotRunning, wire.WaitConditionNextExit, wire.WaitConditionRemoved:
	default:
		return nil, fault.New(fault.Invalid, "invalid condition: %q", condition)
	}
	found, err := s.store.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	l := s.lives.of(found.ID)
	l.mu.Lock()
	defer l.mu.Unlock()
	// Who ends a run or removes a container changes the record first and
	// tells the waiters after, under this lock: nobody is missed.
	r, err := s.store.Find(found.ID)
	if err != nil {
		s.lives.forget(found.ID)
		return nil, err
	}
	w := &waiter{condition: condition, answer: make(chan wire.WaitResponse, 1)}
	if l.run != nil && l.run.over {
		w.past = l.run
	}
	if condition == wire.WaitConditionNotRunning && !r.State.Live() {
		w.answer <- waitResponse(r)
		return w.answer, nil
	}
	l.waiters[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiters, w)
	})
	return w.answer, nil
}

func waitResponse(r Record) wire.WaitResponse {
	w := wire.WaitResponse{StatusCode: int64(r.ExitCode)}
	if r.Error != "" {
		w.Error = &wire.WaitExitError{Message: r.Error}
	}
	return w
}

// tell answers those who wait for what has just happened: an exit, or with
// removed the removal, which satisfies every condition.
func (l *live) tell(r Record, removed bool) {
	if removed { // an error of the start or the run is no error of the removal
		r.Error = ""
	}
	l.answer(r, func(w *waiter) bool { return removed || w.condition != wire.WaitConditionRemoved })
}

// tellEnd answers those who wait for the end of a run.
func (l *live) tellEnd(r Record, over *run) {
	l.answer(r, func(w *waiter) bool { return w.condition != wire.WaitConditionRemoved && w.past != over })
}

// answer answers those who are meant.
func (l *live) answer(r Record, meant func(*waiter) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiters {
		if meant(w) {
			w.answer <- waitResponse(r)
			delete(l.waiters, w)
		}
	}
}

// tellFailure answers everybody who waits for a removal that did not succeed.
func (l *live) tellFailure(r Record, err error) {
	r.Error = "cannot remove the container: " + err.Error()
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiters {
		w.answer <- waitResponse(r)
		delete(l.waiters, w)
	}
}
