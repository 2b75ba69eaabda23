package container

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// StopOptions as in POST /containers/{id}/stop.
type StopOptions struct {
	Signal  string // "" for the container's stop signal
	Timeout *int   // seconds until SIGKILL; nil for the container's or 10; negative for no end
}

const (
	defaultStopTimeout = 10 // seconds
	killGrace          = 10 * time.Second
)

// Stop asks the container's process to end and kills it when it does not
// within the time. fault.NotModified if it does not run.
func (s *Service) Stop(ctx context.Context, nameOrID string, o StopOptions) error {
	r, err := s.store.find(nameOrID)
	if err != nil {
		return err
	}
	if !r.State.Live() {
		return fault.New(fault.NotModified, "container is already stopped")
	}
	if r, err = s.rest(ctx, r); err != nil {
		return err
	}
	if err := s.stop(context.WithoutCancel(ctx), r, o, true); err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", nameOrID, err)
	}
	s.publish(r, events.ActionStop)
	return nil
}

// rest ends the waiting of a container that is about to be restarted. A start
// that is under way already is waited for, as it would not notice.
func (s *Service) rest(ctx context.Context, r Record) (Record, error) {
	if r.State != Restarting {
		return r, nil
	}
	unlock, err := s.ops.Lock(ctx, r.ID)
	if err != nil {
		return r, err
	}
	defer unlock()
	if r, err = s.store.find(r.ID); err != nil || r.State != Restarting {
		return r, err
	}
	r, _, err = s.halt(ctx, r, unix.SIGKILL, true)
	return r, err
}

// stop ends the run and returns when it is recorded as over. With rest the
// restart policy rests from now on; without, for this once.
func (s *Service) stop(ctx context.Context, r Record, o StopOptions, rest bool) error {
	sig, err := stopSignal(r, o.Signal)
	if err != nil {
		return err
	}
	if !rest {
		l := s.live(r.ID)
		l.hold(true)
		defer l.hold(false)
	}
	_, ended, err := s.halt(ctx, r, sig, rest)
	if err != nil || ended == nil {
		return err
	}
	seconds := defaultStopTimeout
	if r.Config.StopTimeout != nil {
		seconds = *r.Config.StopTimeout
	}
	if o.Timeout != nil {
		seconds = *o.Timeout
	}
	var late <-chan time.Time
	if seconds >= 0 {
		timer := time.NewTimer(inSeconds(seconds))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-ended:
		return nil
	case <-late:
		return s.kill(ctx, r, rest)
	}
}

// inSeconds is a time of so many seconds, or the longest that there is.
func inSeconds(n int) time.Duration {
	return time.Duration(min(n, int(math.MaxInt64/time.Second))) * time.Second
}

// hold lets the restart policy rest for the end of the present run.
func (l *live) hold(held bool) {
	l.mu.Lock()
	l.held = held
	l.mu.Unlock()
}

// kill ends the run by SIGKILL and returns when it is recorded as over.
func (s *Service) kill(ctx context.Context, r Record, rest bool) error {
	_, ended, err := s.halt(ctx, r, unix.SIGKILL, rest)
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

// halt sends the signal and, with rest, lays the restart policy to rest. ended
// is nil when there is nothing to wait for.
func (s *Service) halt(ctx context.Context, r Record, sig syscall.Signal, rest bool) (Record, <-chan struct{}, error) {
	updated, err := s.store.note(r.ID, func(p *Progress) error {
		p.ManuallyStopped = p.ManuallyStopped || rest
		if p.State == Restarting && !s.ending.Load() {
			p.State = Exited
		}
		return nil
	})
	if err != nil {
		return r, nil, err
	}
	if !updated.State.Up() {
		l := s.live(r.ID)
		l.callOff()
		l.tell(updated, false)
		return updated, nil, nil
	}
	keeper, ended, err := s.running(r)
	if errors.Is(err, fault.Conflict) { // it ended just now
		return updated, nil, nil
	}
	if err != nil {
		return updated, nil, err
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
		return updated, nil, fault.New(fault.Unavailable, "the process that supervises container %s does not answer", r.ID)
	case err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Unavailable):
		return updated, nil, err
	case err != nil: // it ended just now
		return updated, ended, nil
	}
	s.publish(r, events.ActionKill, "signal", strconv.Itoa(int(sig)))
	if updated.State == Paused && sig != unix.SIGKILL { // any other signal has an effect when its process goes on
		err = s.wake(ctx, updated, keeper, ended)
	}
	return updated, ended, err
}

// Kill sends a signal, SIGKILL if none is named, to the container's process.
func (s *Service) Kill(ctx context.Context, nameOrID, signal string) error {
	sig := unix.SIGKILL
	if signal != "" {
		var err error
		if sig, err = parseSignal(signal); err != nil {
			return err
		}
	}
	r, err := s.store.find(nameOrID)
	if err != nil {
		return err
	}
	if !r.State.Live() {
		return notRunning(r)
	}
	stop, err := stopSignal(r, "")
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL || sig == stop {
		if r, err = s.rest(ctx, r); err != nil || !r.State.Live() {
			return err
		}
	}
	switch sig {
	case unix.SIGKILL:
		return s.kill(context.WithoutCancel(ctx), r, true)
	case stop:
		_, _, err := s.halt(ctx, r, sig, true)
		return err
	}
	keeper, ended, err := s.running(r)
	if err != nil {
		return err
	}
	if err := ofRun(r, ended, keeper.Signal(ctx, sig)); err != nil {
		return err
	}
	s.publish(r, events.ActionKill, "signal", strconv.Itoa(int(sig)))
	return nil
}

// stopSignal is the signal asked for, the container's, or SIGTERM. A container's
// that is none can only be the image's, and must not make it unstoppable.
func stopSignal(r Record, asked string) (syscall.Signal, error) {
	if asked != "" {
		return parseSignal(asked)
	}
	if sig, err := parseSignal(r.Config.StopSignal); err == nil {
		return sig, nil
	}
	return unix.SIGTERM, nil
}

// parseSignal reads a signal's number or name, with or without SIG, signal(7).
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n <= 0 || n > 64 {
			return 0, fault.New(fault.Invalid, "invalid signal: %s", s)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if sig, ok := realtimeSignal(strings.TrimPrefix(name, "SIG")); ok {
		return sig, nil
	}
	return 0, fault.New(fault.Invalid, "invalid signal: %s", s)
}

// The C library keeps the first two real-time signals for itself.
const rtMin, rtMax = 34, 64

func realtimeSignal(name string) (syscall.Signal, bool) {
	base, rest := rtMin, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		rest = strings.TrimPrefix(name, "RTMIN")
	case strings.HasPrefix(name, "RTMAX"):
		base, rest = rtMax, strings.TrimPrefix(name, "RTMAX")
	default:
		return 0, false
	}
	n := 0
	if rest != "" {
		var err error
		if n, err = strconv.Atoi(rest); err != nil {
			return 0, false
		}
	}
	sig := base + n
	return syscall.Signal(sig), sig >= rtMin && sig <= rtMax
}
