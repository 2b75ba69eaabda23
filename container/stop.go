package container

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
)

// StopOptions as in POST /containers/{id}/stop.
type StopOptions struct {
	Signal  string // "" for the container's stop signal
	Timeout *int   // seconds until SIGKILL; nil for the container's or 10; negative for no end
}

const killGrace = 10 * time.Second

// Stop asks the container's process to end and kills it when it does not
// within the time. fault.NotModified if it does not run.
func (s *Service) Stop(ctx context.Context, nameOrID string, o StopOptions) error {
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return err
	}
	if !r.State.Live() {
		return fault.New(fault.NotModified, "container is already stopped")
	}
	h := &halt{containers: s, record: r, rest: true}
	if err := h.callOff(ctx); err != nil {
		return err
	}
	if err := h.stop(context.WithoutCancel(ctx), o); err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", nameOrID, err)
	}
	s.publish(r, events.ActionStop)
	return nil
}

// halt ends one run of a container at somebody's wish. With rest the restart
// policy rests from now on; without, for this once.
type halt struct {
	containers *Service
	record     Record
	rest       bool
}

// callOff ends the waiting of a container that is about to be restarted. A start
// that is under way already is waited for, as it would not notice.
func (h *halt) callOff(ctx context.Context) error {
	if h.record.State != record.Restarting {
		return nil
	}
	unlock, err := h.containers.ops.Lock(ctx, h.record.ID)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := h.containers.store.Find(h.record.ID)
	if err != nil {
		return err
	}
	if h.record = now; now.State == record.Restarting {
		_, err = h.signal(ctx, unix.SIGKILL)
	}
	return err
}

// stop ends the run and returns when it is recorded as over.
func (h *halt) stop(ctx context.Context, o StopOptions) error {
	sig, err := h.record.StopSignal(o.Signal)
	if err != nil {
		return err
	}
	if !h.rest {
		l := h.containers.lives.of(h.record.ID)
		l.tries.Hold(true)
		defer l.tries.Hold(false)
	}
	ended, err := h.signal(ctx, sig)
	if err != nil || ended == nil {
		return err
	}
	limit := h.record.StopTimeout(o.Timeout)
	var late <-chan time.Time
	if limit >= 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-ended:
		return nil
	case <-late:
		return h.kill(ctx)
	}
}

// kill ends the run by SIGKILL and returns when it is recorded as over.
func (h *halt) kill(ctx context.Context) error {
	ended, err := h.signal(ctx, unix.SIGKILL)
	if err != nil || ended == nil {
		return err
	}
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
		return fault.New(fault.Internal, "tried to kill container, but did not receive an exit event")
	}
}

// signal sends the signal and, with rest, lays the restart policy to rest. ended
// is nil when there is nothing to wait for.
func (h *halt) signal(ctx context.Context, sig syscall.Signal) (ended <-chan struct{}, err error) {
	s := h.containers
	r, err := s.store.Note(h.record.ID, func(p *record.Progress) error {
		p.ManuallyStopped = p.ManuallyStopped || h.rest
		if p.State == record.Restarting && !s.ending.Load() {
			p.State = record.Exited
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	h.record = r
	if !r.State.Up() {
		if l := s.lives.find(r.ID); l != nil {
			l.tries.CallOff()
			l.tell(r, false)
		}
		return nil, nil
	}
	keeper, ended, err := s.lives.running(r)
	if errors.Is(err, fault.Conflict) { // it ended just now
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	if sig == unix.SIGKILL {
		err = keeper.Kill(ctx)
	} else {
		err = keeper.Signal(ctx, sig)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fault.New(fault.Unavailable, "the process that supervises container %s does not answer", r.ID)
	case err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Unavailable):
		return nil, err
	case err != nil: // it ended just now
		return ended, nil
	}
	s.publish(r, events.ActionKill, "signal", strconv.Itoa(int(sig)))
	if r.State == record.Paused && sig != unix.SIGKILL { // any other signal has an effect when its process goes on
		err = s.wake(ctx, r, keeper, ended)
	}
	return ended, err
}

// Kill sends a signal, SIGKILL if none is named, to the container's process.
func (s *Service) Kill(ctx context.Context, nameOrID, signal string) error {
	sig := unix.SIGKILL
	if signal != "" {
		var err error
		if sig, err = record.ParseSignal(signal); err != nil {
			if n, notNumber := strconv.Atoi(signal); notNumber == nil && n != 0 {
				return fault.New(fault.Invalid, "the linux daemon does not support signal %d", n)
			}
			return err
		}
	}
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return err
	}
	if !r.State.Live() {
		return notRunning(r)
	}
	stop, err := r.StopSignal("")
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL || sig == stop {
		h := &halt{containers: s, record: r, rest: true}
		if err := h.callOff(ctx); err != nil || !h.record.State.Live() {
			return err
		}
		if sig == unix.SIGKILL {
			return h.kill(context.WithoutCancel(ctx))
		}
		_, err := h.signal(ctx, sig)
		return err
	}
	keeper, ended, err := s.lives.running(r)
	if err != nil {
		return err
	}
	if err := ofRun(r, ended, keeper.Signal(ctx, sig)); err != nil {
		return err
	}
	s.publish(r, events.ActionKill, "signal", strconv.Itoa(int(sig)))
	return nil
}
