package container

import (
	"context"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/record"
)

// restarts tells whether a policy wants another run after one that ended with
// code, having restarted it so many times.
func restarts(p wire.RestartPolicy, code, count int) bool {
	switch p.Name {
	case wire.RestartPolicyAlways, wire.RestartPolicyUnlessStopped:
		return true
	case wire.RestartPolicyOnFailure:
		return code != 0 && (p.MaximumRetryCount == 0 || count < p.MaximumRetryCount)
	}
	return false
}

// beginsAgain tells whether a policy wants a new daemon to start a container
// that has ended: always even one that was stopped by hand, and unless-stopped
// one that an earlier try could not start.
func beginsAgain(r Record) bool {
	switch r.HostConfig.RestartPolicy.Name {
	case wire.RestartPolicyAlways:
		return true
	case wire.RestartPolicyUnlessStopped:
		return !r.ManuallyStopped
	}
	return false
}

// The waits of a restart policy double from minBackoff to maxBackoff, and a
// run of at least steadyRun begins anew, as Docker has it.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = time.Minute
	steadyRun  = 10 * time.Second
)

// backoff is how long to wait before the next run.
func (l *live) backoff(ran time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wait *= 2; l.wait == 0 || ran >= steadyRun {
		l.wait = minBackoff
	}
	l.wait = min(l.wait, maxBackoff)
	return l.wait
}

// retrying begins the wait for the next try; the channel is closed when
// somebody calls it off.
func (l *live) retrying() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveUp = make(chan struct{})
	return l.giveUp
}

// callOff ends the wait for the next try, if there is one.
func (l *live) callOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.callOffLocked()
}

func (l *live) callOffLocked() {
	if l.giveUp != nil {
		close(l.giveUp)
		l.giveUp = nil
	}
}

// tryAgain waits, then starts a restarting container, unless that is called off
// or the service closed meanwhile.
func (v *vigil) tryAgain(giveUp <-chan struct{}) {
	s, r := v.containers, v.record
	timer := time.NewTimer(v.live.backoff(r.FinishedAt.Sub(r.StartedAt)))
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
	if err := s.startLocked(context.Background(), current); err != nil {
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
	if err := s.startAnew(ctx, r); err != nil {
		return err
	}
	s.publish(r, events.ActionRestart)
	return nil
}
