package container

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tarehq/tare/container/session"
	"github.com/tarehq/tare/supervise"
)

// resume takes over the execs of a container that runs, from what its
// supervising process tells: those of an earlier daemon are known again, and of
// our own it is known how they ended while nobody was connected.
func (e *Execs) resume(r Record, keeper *supervise.Keeper, list []supervise.ExecStatus) {
	for _, t := range list {
		var of session.Note
		_ = json.Unmarshal(t.Note, &of) // of another version: what it does not say is not known
		if of.Probe {
			if t.Exit == nil { // whoever asked is gone
				e.containers.tasks.Go(func() { endProbe(keeper, t.ID) })
			}
			continue
		}
		n, err := e.sessions.Find(t.ID)
		if err != nil {
			n = session.Restored(r.ID, t, of)
			e.sessions.Add(n)
		}
		switch {
		case t.Exit == nil:
			e.containers.tasks.Go(func() { e.follow(r, n, keeper) })
		case err == nil:
			e.ended(r, n, t.Exit.Code)
		default: // whether its end was told is not known; the same is not told twice
			e.sessions.End(n, t.Exit.Code)
		}
	}
}

// told asks a supervising process for the execs of its container.
func (e *Execs) told(keeper *supervise.Keeper) []supervise.ExecStatus {
	ctx, cancel := context.WithTimeout(context.Background(), connectTime)
	defer cancel()
	list, err := keeper.Execs.List(ctx)
	if err != nil { // it has ended, or is stuck: nothing depends on them
		e.containers.cfg.Log.Warn("the execs of a container are not known", "err", err)
	}
	return list
}

// await waits, at the end of a run, for the ends of execs that are on their
// way, as long as the supervising process is there to tell them.
func (e *Execs) await(container string, keeper *supervise.Keeper) {
	var late <-chan time.Time
	for _, n := range e.sessions.All(container) {
		if !n.Running() {
			continue
		}
		if late == nil {
			late = time.After(settleTime)
		}
		select {
		case <-n.Done():
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
	for _, n := range e.sessions.All(r.ID) {
		switch {
		case n.Running():
			e.ended(r, n, killed)
		case n.Result() == nil:
			e.sessions.Drop(n)
		}
	}
}
