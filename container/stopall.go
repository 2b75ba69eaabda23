package container

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
)

// stopGrace is how much longer than its containers' stop timeouts a stop of all
// may take, as Docker has it.
const stopGrace = 5 * time.Second

// StopAll stops the containers because the daemon ends: each as its stop signal
// and timeout say, and what is left after the limit by SIGKILL. The limit grows
// to the longest timeout and 5 s more; a negative one, or a container that may
// take for ever, is none. No restart policy acts until the next daemon begins,
// which starts those again whose policy wants it: nobody has stopped them by hand.
func StopAll(ctx context.Context, s *Service, limit time.Duration) error {
	s.ending.Store(true)
	var live []Record
	for _, r := range s.store.All() {
		if l := s.lives.find(r.ID); l != nil {
			l.tries.CallOff() // who waits for another try
		}
		if r.State.Live() && r.State != record.Restarting {
			live = append(live, r)
		}
	}
	for _, r := range live {
		wait := r.StopTimeout(nil)
		wait += min(stopGrace, math.MaxInt64-max(wait, 0))
		if r.StopTimeout(nil) < 0 || limit < 0 {
			limit = -1
		} else {
			limit = max(limit, wait)
		}
	}
	late, cancel := context.WithCancel(ctx)
	if limit >= 0 {
		late, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	errs := make([]error, len(live))
	var stopping sync.WaitGroup
	for i, r := range live {
		stopping.Go(func() { errs[i] = (&halt{containers: s, record: r}).atEnd(late) })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// atEnd stops one of them, by SIGKILL when ctx ends.
func (h *halt) atEnd(ctx context.Context) error {
	r := h.record
	sig, err := r.StopSignal("")
	if err != nil {
		return err
	}
	calm := context.WithoutCancel(ctx)
	ended, err := h.signal(calm, sig)
	if err != nil || ended == nil {
		return err
	}
	if wait := r.StopTimeout(nil); wait >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	select {
	case <-ended:
	case <-ctx.Done():
		if err := h.kill(calm); err != nil {
			return fault.New(fault.KindOf(err), "container %s goes on: %w", r.ID, err)
		}
	}
	h.containers.publish(r, events.ActionStop)
	return nil
}
