package container

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/record"
)

// tryAgain waits, then starts a restarting container, unless that is called off
// or the service closed meanwhile.
func (v *vigil) tryAgain(giveUp <-chan struct{}) {
	s, r := v.containers, v.record
	timer := time.NewTimer(v.live.tries.Wait(r.FinishedAt.Sub(r.StartedAt)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-giveUp:
		return
	case <-s.tasks.Closing():
		return
	}
	if !s.links.Await(&r, giveUp, s.tasks.Closing()) {
		return
	}
	unlock, err := s.ops.Lock(context.Background(), r.ID)
	if err != nil {
		return
	}
	defer unlock()
	current, err := s.store.Find(r.ID)
	if err != nil || current.State != record.Restarting || s.ending.Load() {
		return
	}
	if err := s.startLocked(context.Background(), current, nil); err != nil {
		s.cfg.Log.Error("the restart policy could not start the container", "container", r.ID, "err", err)
	}
}

// Restart stops the container if it runs, and starts it.
func (s *Service) Restart(ctx context.Context, nameOrID string, o StopOptions) error {
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	if r.State.Live() {
		if err := (&halt{containers: s, record: r}).stop(ctx, o); err != nil {
			return err
		}
		s.publish(r, events.ActionStop)
		if r, err = s.store.Find(r.ID); err != nil {
			return err
		}
	}
	if err := startable(r); err != nil {
		return err
	}
	if err := s.startAnew(ctx, r, nil); err != nil {
		return err
	}
	s.publish(r, events.ActionRestart)
	return nil
}
