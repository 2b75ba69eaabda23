package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// cleanGrace bounds how long the end of a run waits for its supervising
// process to clean up.
const cleanGrace = 10 * time.Second

// watch waits for the end of a run and does what follows from it. It returns
// early when the service is closed; the next daemon takes over then.
func (s *Service) watch(r Record, l *live, run *run) {
	keeper, lost := run.keeper, run.refused // not changed by anybody else
	for {
		if keeper != nil {
			s.watchers.Go(func() { s.tell(r, keeper) })
			exit, err := keeper.Wait(context.Background()) // ends when Close drops the connection
			if s.isClosing() {
				return
			}
			if err == nil {
				s.finish(r, l, run, exit)
				return
			}
			lost = err
		}
		// The connection is gone, which the process need not be.
		if keeper = s.regain(&r, l, run, lost); keeper == nil {
			if !s.isClosing() {
				s.finish(r, l, run, s.lost(r, lost))
			}
			return
		}
	}
}

// connectTime bounds the wait for a supervising process to answer.
const connectTime = 5 * time.Second

// connect finds the supervising process of a container. fault.NotFound means
// that there is none; after any other error the container may run.
func (s *Service) connect(ctx context.Context, id string) (*supervise.Keeper, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	keeper, err := supervise.Connect(ctx, s.bundleDir(id))
	if errors.Is(err, context.DeadlineExceeded) {
		err = fault.New(fault.Unavailable, "the process that supervises container %s does not answer", id)
	}
	return keeper, err
}

// execsOf asks a supervising process for the execs of its container.
func (s *Service) execsOf(keeper *supervise.Keeper) []supervise.ExecStatus {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	list, err := keeper.Execs(ctx)
	if err != nil { // it has ended, or is stuck: nothing depends on them
		s.cfg.Log.Warn("the execs of a container are not known", "err", err)
	}
	return list
}

// regain connects to a supervising process anew, and waits for one that is
// there and does not answer, or not to this daemon; what it tells of the run is
// recorded. nil means that there is none, or that the service is closed.
func (s *Service) regain(r *Record, l *live, run *run, lost error) *supervise.Keeper {
	l.mu.Lock()
	run.keeper, run.refused = nil, lost
	l.mu.Unlock()
	for wait := time.Duration(0); ; wait = min(2*wait+100*time.Millisecond, 10*time.Second) {
		select {
		case <-time.After(wait):
		case <-s.closing:
			return nil
		}
		keeper, err := s.connect(context.Background(), r.ID)
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		if keeper != nil && keeper.Status().Phase == supervise.PhaseCreated { // started by nobody
			if err := end(context.Background(), keeper); err != nil {
				s.cfg.Log.Error("a container that was never started cannot be ended", "container", r.ID, "err", err)
			}
			return nil
		}
		if keeper != nil {
			status := keeper.Status()
			if updated, err := s.store.note(r.ID, func(p *Progress) error {
				p.runs(status)
				return nil
			}); err == nil {
				*r = updated
			}
		}
		l.mu.Lock()
		run.keeper, run.refused = keeper, err
		closing := s.isClosing() // letGo has been here, or will find the keeper
		l.mu.Unlock()
		if keeper != nil {
			if closing {
				keeper.Close()
			}
			s.execs.resume(*r, keeper, s.execsOf(keeper))
			return keeper
		}
	}
}

// tell publishes what the supervising process tells beside the end, and sees to
// what was rotated out of the log, as long as the connection lasts: clients that left by their detach keys, processes killed
// for want of memory.
func (s *Service) tell(r Record, keeper *supervise.Keeper) {
	for {
		select {
		case e := <-keeper.Detached():
			if e.ExecID != "" {
				s.publish(r, events.ActionExecDetach, "execID", e.ExecID)
			} else {
				s.publish(r, events.ActionDetach)
			}
		case <-keeper.OOM():
			s.outOfMemory(r)
		case <-keeper.Rotated():
			s.watchers.Go(func() { s.logs.rotated(&r) })
		case <-keeper.Gone():
			return
		}
	}
}

// outOfMemory notes that a process of a run was killed for want of memory, which
// the container may survive.
func (s *Service) outOfMemory(r Record) {
	if _, err := s.store.note(r.ID, func(p *Progress) error {
		if !p.State.Up() || !p.StartedAt.Equal(r.StartedAt) {
			return errOver // the end of the run has told of it
		}
		p.OOMKilled = true
		return nil
	}); err == nil {
		s.publish(r, events.ActionOOM)
	}
}

// lost is the end of a container whose supervising process died: its init, if
// it still runs, is killed, since nobody holds its output any more.
func (s *Service) lost(r Record, cause error) supervise.Exit {
	dir := s.bundleDir(r.ID)
	if exit, err := supervise.ReadExit(dir); err == nil {
		return exit
	}
	if err := s.collect(r.ID); err != nil {
		s.cfg.Log.Error("a container lost its supervising process and cannot be cleared up", "container", r.ID, "err", err)
	}
	return supervise.Exit{Code: 137, ExitedAt: time.Now(), Error: "the supervising process died: " + cause.Error()}
}

// collect ends what a supervising process left behind that is no more.
func (s *Service) collect(id string) error {
	dir := s.bundleDir(id)
	if _, err := os.Stat(filepath.Join(dir, "config.json")); errors.Is(err, fs.ErrNotExist) {
		return nil // it died before there was anything
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanGrace)
	defer cancel()
	return s.cfg.Launcher.Collect(ctx, id, dir)
}

// finish cleans up after a run, records how it ended and tells everybody; then
// the restart policy or the removal follows. When a container is seen as
// exited nothing of its run is left.
func (s *Service) finish(r Record, l *live, run *run, exit supervise.Exit) {
	if exit.LogDropped > 0 {
		s.cfg.Log.Error("output of a container is missing in its log", "container", r.ID, "records", exit.LogDropped, "err", exit.LogError)
	}
	if now, err := s.store.find(r.ID); err == nil { // it may have been renamed or updated since the start
		r = now
	}
	s.health.ended(r.ID)
	rest := s.clean(r, run.keeper)
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	again, told := false, false
	var endpoint = r.Endpoint
	updated, err := s.store.change(r.ID, func(p *Progress) error {
		told = p.OOMKilled
		again = !held && !p.ManuallyStopped && restarts(r.HostConfig.RestartPolicy, exit.Code, p.RestartCount)
		*p = Progress{State: Exited, StartedAt: p.StartedAt, FinishedAt: exit.ExitedAt, ExitCode: exit.Code,
			Error: exit.Error, OOMKilled: exit.OOMKilled, RestartCount: p.RestartCount, ManuallyStopped: p.ManuallyStopped,
			Health: overHealth(p.Health)}
		if again {
			p.State = Restarting
			if !s.ending.Load() { // else it is the next daemon that starts it
				p.RestartCount++
			}
		}
		return nil
	})
	if err != nil {
		s.cfg.Log.Error("cannot record the end of a container", "container", r.ID, "err", err)
		updated, again = r, false
		updated.ExitCode, updated.Error = exit.Code, exit.Error
	}
	if err := s.store.flush(r.ID); err != nil {
		// The exit record beside the bundle is the only one on disk: the next
		// daemon reads it.
		s.cfg.Log.Error("the end of a container cannot be written", "container", r.ID, "err", err)
		rest = ""
	}
	var giveUp <-chan struct{}
	if again {
		giveUp = l.retrying()
	}
	s.execs.runOver(r)
	s.deleteLater(rest) // with the exit record, now that it is in ours
	if exit.OOMKilled && !told {
		s.publish(r, events.ActionOOM)
	}
	s.publish(r, events.ActionDie, "exitCode", strconv.Itoa(exit.Code),
		"execDuration", strconv.Itoa(int(exit.ExitedAt.Sub(r.StartedAt).Seconds())))
	if endpoint != nil {
		s.publishNetwork(r, events.ActionDisconnect)
	}
	l.end(run)
	l.tell(updated, false)
	switch {
	case r.autoRemove():
		s.autoRemove(r)
	case again && !s.ending.Load():
		s.watchers.Go(func() { s.tryAgain(updated, l, giveUp) })
	}
}

// clean takes back what a run holds: cgroup, supervising process, network. The
// bundle is only taken out of the way; its new path is returned. What cannot be
// taken back is logged.
func (s *Service) clean(r Record, keeper *supervise.Keeper) (rest string) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanGrace)
	defer cancel()
	var errs []error
	detached := make(chan error, 1)
	go func() { detached <- s.detachNetwork(ctx, r.Endpoint) }()
	if keeper != nil {
		errs = append(errs, keeper.Release(ctx))
		s.execs.await(r.ID, keeper)
		keeper.Close() // the other side has closed it already
	}
	rest, err := moveAway(s.bundleDir(r.ID))
	errs = append(errs, <-detached, err)
	if err := errors.Join(errs...); err != nil {
		s.cfg.Log.Error("something of an ended container is left", "container", r.ID, "err", err)
	}
	return rest
}

// moveAway renames a directory that nobody needs any more, "" if there is none
// or nothing is left to delete. What a dying daemon does not delete the next one
// collects.
func moveAway(dir string) (away string, err error) {
	away = dir + removingSuffix
	switch err := os.Rename(dir, away); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil: // the last one is not gone yet
		if err := os.RemoveAll(away); err != nil {
			return "", err
		}
		return away, os.Rename(dir, away)
	}
	return away, nil
}

// deleteLater deletes what moveAway took away while others go on.
func (s *Service) deleteLater(away string) {
	if away == "" {
		return
	}
	s.watchers.Go(func() {
		if err := os.RemoveAll(away); err != nil {
			s.cfg.Log.Error("a directory cannot be deleted", "dir", away, "err", err)
		}
	})
}

func (s *Service) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// autoRemove removes a container that ends with its process.
func (s *Service) autoRemove(r Record) {
	unlock, err := s.ops.Lock(context.Background(), r.ID)
	if err != nil {
		return
	}
	defer unlock()
	current, err := s.store.find(r.ID)
	if err != nil || current.State.Live() { // somebody was quicker
		return
	}
	if err := s.removeLocked(current); err != nil {
		s.cfg.Log.Error("cannot remove a container that has ended", "container", r.ID, "err", err)
		s.live(r.ID).tellFailure(current, err)
	}
}
