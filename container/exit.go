package container

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/restart"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/aside"
	"github.com/tarehq/tare/supervise"
)

// vigil watches over one run of a container and does what follows from its end.
type vigil struct {
	containers *Service
	record     Record
	live       *live
	run        *run
}

// watch waits for the end of the run. It returns early when the service is
// closed; the next daemon takes over then.
func (v *vigil) watch() {
	s := v.containers
	keeper, lost := v.run.keeper, v.run.refused // not changed by anybody else
	for {
		if keeper != nil {
			r := v.record // which regain changes
			s.tasks.Go(func() { v.tell(r, keeper) })
			exit, err := keeper.Wait(context.Background()) // ends when Close drops the connection
			if s.tasks.Over() {
				return
			}
			if err == nil {
				v.finish(exit)
				return
			}
			lost = err
		}
		// The connection is gone, which the process need not be.
		if keeper = v.regain(lost); keeper == nil {
			if !s.tasks.Over() {
				v.finish(v.lost(lost))
			}
			return
		}
	}
}

// regain connects to a supervising process anew, and waits for one that is
// there and does not answer, or not to this daemon; what it tells of the run is
// recorded. nil means that there is none, or that the service is closed.
func (v *vigil) regain(lost error) *supervise.Keeper {
	s, l, run := v.containers, v.live, v.run
	l.mu.Lock()
	run.keeper, run.refused = nil, lost
	l.mu.Unlock()
	for wait := time.Duration(0); ; wait = min(2*wait+100*time.Millisecond, 10*time.Second) {
		select {
		case <-time.After(wait):
		case <-s.tasks.Closing():
			return nil
		}
		keeper, err := s.bundles.connect(context.Background(), v.record.ID)
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		if keeper != nil && keeper.Status().Phase == supervise.PhaseCreated { // started by nobody
			if err := end(context.Background(), keeper); err != nil {
				s.cfg.Log.Error("a container that was never started cannot be ended", "container", v.record.ID, "err", err)
			}
			return nil
		}
		if keeper != nil {
			status := keeper.Status()
			if updated, err := s.store.Note(v.record.ID, func(p *record.Progress) error {
				runs(p, status)
				return nil
			}); err == nil {
				v.record = updated
			}
		}
		l.mu.Lock()
		run.keeper, run.refused = keeper, err
		closing := s.tasks.Over() // letGo has been here, or will find the keeper
		l.mu.Unlock()
		if keeper != nil {
			if closing {
				keeper.Close()
			}
			s.Execs.resume(v.record, keeper, s.Execs.told(keeper))
			return keeper
		}
	}
}

// tell publishes what the supervising process tells beside the end, as long as
// the connection lasts: clients that left by their detach keys, processes killed
// for want of memory. It sees to what was rotated out of the log, too.
func (v *vigil) tell(r Record, keeper *supervise.Keeper) {
	s := v.containers
	for {
		select {
		case e := <-keeper.Detached():
			if e.ExecID != "" {
				s.publish(r, events.ActionExecDetach, "execID", e.ExecID)
			} else {
				s.publish(r, events.ActionDetach)
			}
		case <-keeper.OOM():
			v.outOfMemory(r)
		case <-keeper.Rotated():
			s.tasks.Go(func() { s.Logbook.Rotated(&r) })
		case <-keeper.Gone():
			return
		}
	}
}

// outOfMemory notes that a process of a run was killed for want of memory, which
// the container may survive.
func (v *vigil) outOfMemory(r Record) {
	s := v.containers
	if _, err := s.store.Note(r.ID, func(p *record.Progress) error {
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
func (v *vigil) lost(cause error) supervise.Exit {
	s, r := v.containers, v.record
	if exit, err := supervise.ReadExit(s.bundles.path(r.ID)); err == nil {
		return exit
	}
	if err := s.bundles.collect(r.ID); err != nil {
		s.cfg.Log.Error("a container lost its supervising process and cannot be cleared up", "container", r.ID, "err", err)
	}
	return supervise.Exit{Code: 137, ExitedAt: time.Now(), Error: "the supervising process died: " + cause.Error()}
}

// finish cleans up after a run, records how it ended and tells everybody; then
// the restart policy or the removal follows. When a container is seen as
// exited nothing of its run is left.
func (v *vigil) finish(exit supervise.Exit) {
	s, r, l := v.containers, v.record, v.live
	if exit.LogDropped > 0 {
		s.cfg.Log.Error("output of a container is missing in its log", "container", r.ID, "records", exit.LogDropped, "err", exit.LogError)
	}
	if now, err := s.store.Find(r.ID); err == nil { // it may have been renamed or updated since the start
		r = now
	}
	s.Health.ended(r.ID)
	v.record = r
	rest := v.clean()
	keep := false
	updated, again, told := v.conclude(exit)
	r = v.record
	if err := s.store.Flush(r.ID); err != nil {
		// The exit record beside the bundle is the only one on disk: the next
		// daemon reads it.
		s.cfg.Log.Error("the end of a container cannot be written", "container", r.ID, "err", err)
		keep = true
	}
	var giveUp <-chan struct{}
	if again {
		giveUp = l.tries.Begin()
	}
	s.Execs.runOver(r)
	if rest != "" {
		s.remains.add(remain{r.ID, rest, keep}) // with the exit record, now that it is in ours
	}
	if exit.OOMKilled && !told {
		s.publish(r, events.ActionOOM)
	}
	s.publish(r, events.ActionDie, "exitCode", strconv.Itoa(exit.Code),
		"execDuration", strconv.Itoa(int(exit.ExitedAt.Sub(r.StartedAt).Seconds())))
	s.Places.tell(&r, events.ActionDisconnect)
	s.Mounts.Tell(&r, events.ActionUnmount)
	l.end(v.run)
	l.tellEnd(updated, v.run)
	switch {
	case r.AutoRemove():
		v.autoRemove()
	case again && !s.ending.Load():
		v.record = updated
		s.tasks.Go(func() { v.tryAgain(giveUp) })
	}
}

// conclude has the record tell how the run ended. again tells that the restart
// policy wants another, told that the want of memory has been told of.
func (v *vigil) conclude(exit supervise.Exit) (updated Record, again, told bool) {
	s, r, l := v.containers, v.record, v.live
	last := r.Sandbox
	// In one with the record: who sees the end there and attaches or waits means
	// the next run.
	l.mu.Lock()
	held := l.tries.Held()
	v.run.over = true
	updated, err := s.store.Change(r.ID, func(p *record.Progress) error {
		told, last = p.OOMKilled, p.Sandbox
		again = !held && !p.ManuallyStopped && restart.Wanted(r.HostConfig.RestartPolicy, exit.Code, p.RestartCount)
		*p = record.Progress{State: record.Exited, StartedAt: p.StartedAt, FinishedAt: exit.ExitedAt, ExitCode: exit.Code,
			Error: exit.Error, OOMKilled: exit.OOMKilled, RestartCount: p.RestartCount, ManuallyStopped: p.ManuallyStopped,
			NetworkIDs: p.NetworkIDs, Health: healthcheck.Over(p.Health)}
		if again {
			p.State = record.Restarting
			if !s.ending.Load() { // else it is the next daemon that starts it
				p.RestartCount++
			}
		}
		return nil
	})
	l.mu.Unlock()
	if err != nil {
		s.cfg.Log.Error("cannot record the end of a container", "container", r.ID, "err", err)
		updated, again = r, false
		updated.ExitCode, updated.Error = exit.Code, exit.Error
	}
	if last != r.Sandbox { // it was connected or disconnected while clean was under way
		if err := detach(context.Background(), s.cfg.Networks, last); err != nil {
			s.cfg.Log.Error("a place on a network of an ended container is left", "container", r.ID, "err", err)
		}
		v.record.Sandbox = last
	}
	return updated, again, told
}

// clean takes back what a run holds: supervising process, network, cgroups where
// somebody may be in them. The others and the bundle are only taken out of the way;
// the bundle's new path is returned. What cannot be taken back is logged.
func (v *vigil) clean() (rest string) {
	s, r, keeper := v.containers, v.record, v.run.keeper
	ctx, cancel := context.WithTimeout(context.Background(), cleanGrace)
	defer cancel()
	var errs []error
	detached := make(chan error, 1)
	go func() { detached <- detach(ctx, s.cfg.Networks, r.Sandbox) }()
	if keeper != nil {
		leave := keeper.Leave
		if r.HostConfig.CgroupParent != "" { // somebody's own, who may remove it with his container
			leave = keeper.Release
		}
		errs = append(errs, leave(ctx))
		s.Execs.await(r.ID, keeper)
		keeper.Close() // the other side has closed it already
	}
	rest, err := aside.Move(s.bundles.path(r.ID))
	errs = append(errs, <-detached, err, s.Mounts.Unmount(ctx, &r))
	if err := errors.Join(errs...); err != nil {
		s.cfg.Log.Error("something of an ended container is left", "container", r.ID, "err", err)
	}
	return rest
}

// autoRemove removes a container that ends with its process.
func (v *vigil) autoRemove() {
	s, r := v.containers, v.record
	unlock, err := s.ops.Lock(context.Background(), r.ID)
	if err != nil {
		return
	}
	defer unlock()
	current, err := s.store.Find(r.ID)
	if err != nil || current.State.Live() { // somebody was quicker
		return
	}
	if err := s.removeLocked(current, true); err != nil {
		s.cfg.Log.Error("cannot remove a container that has ended", "container", r.ID, "err", err)
		v.live.tellFailure(current, err)
	}
}
