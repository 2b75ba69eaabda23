package container

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tarehq/tare/supervise"
)

// resume takes over the execs of a container that runs, from what its
// supervising process tells: those of an earlier daemon are known again, and of
// our own it is known how they ended while nobody was connected.
func (e *Execs) resume(r Record, keeper *supervise.Keeper, list []supervise.ExecStatus) {
	for _, t := range list {
		var of note
		_ = json.Unmarshal(t.Note, &of) // of another version: what it does not say is not known
		if of.Probe {
			if t.Exit == nil { // whoever asked is gone
				e.containers.tasks.Go(func() { endProbe(keeper, t.ID) })
			}
			continue
		}
		n, err := e.find(t.ID)
		if err != nil {
			n = restored(r.ID, t, of)
			e.add(n)
		}
		switch {
		case t.Exit == nil:
			e.containers.tasks.Go(func() { e.follow(r, n, keeper) })
		case err == nil:
			e.ended(r, n, t.Exit.Code)
		default: // whether its end was told is not known; the same is not told twice
			e.fail(n, t.Exit.Code)
		}
	}
}

// told asks a supervising process for the execs of its container.
func (e *Execs) told(keeper *supervise.Keeper) []supervise.ExecStatus {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	list, err := keeper.Execs(ctx)
	if err != nil { // it has ended, or is stuck: nothing depends on them
		e.containers.cfg.Log.Warn("the execs of a container are not known", "err", err)
	}
	return list
}

// restored makes the session of an exec that an earlier daemon started.
func restored(container string, t supervise.ExecStatus, of note) *session {
	n := newSession(t.ID, container)
	q := &n.request
	q.Cmd, q.Tty, q.Privileged = t.Args, t.TTY, of.Privileged
	q.AttachStdin, q.AttachStdout, q.AttachStderr = of.Stdin, of.Stdout, of.Stderr
	n.user, n.keys = of.User, append([]byte{}, of.Keys...)
	n.started, n.running = true, true
	n.exists(t.Pid)
	return n
}

// await waits, at the end of a run, for the ends of execs that are on their
// way, as long as the supervising process is there to tell them.
func (e *Execs) await(container string, keeper *supervise.Keeper) {
	var late <-chan time.Time
	for _, n := range e.all(container) {
		if !n.isRunning() {
			continue
		}
		if late == nil {
			late = time.After(settleTime)
		}
		select {
		case <-n.done:
		case <-keeper.Gone():
			return
		case <-late:
			return
		}
	}
}

// runOver ends what is left of the execs of a run: those that never started
// are gone with it, and those that ran were killed.
func (e *Execs) runOver(r Record) {
	for _, n := range e.all(r.ID) {
		n.mu.Lock()
		started, running := n.started, n.running
		n.mu.Unlock()
		switch {
		case running:
			e.ended(r, n, killed)
		case !started:
			e.mu.Lock()
			e.removeLocked(n)
			e.mu.Unlock()
		}
	}
}
