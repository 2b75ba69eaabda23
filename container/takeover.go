package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// takeOver connects to the containers that an earlier daemon left running,
// records the end of those that ended meanwhile, and takes back what belongs
// to nobody.
func (s *Service) takeOver(ctx context.Context) error {
	for _, r := range s.store.all() {
		// A run that ended, and the daemon before its end was recorded.
		if dir := s.bundleDir(r.ID); r.State.Up() || r.autoRemove() {
			if err := os.Rename(dir+removingSuffix, dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	if err := s.dropOrphans(ctx); err != nil {
		return err
	}
	for _, id := range s.cfg.Snapshots.Active() {
		if _, err := s.store.find(id); err != nil && !s.store.damaged[id] { // of a create or a remove that was cut off
			if err := s.cfg.Snapshots.Remove(id); err != nil {
				s.cfg.Log.Error("the layer of a removed container cannot be deleted", "container", id, "err", err)
			}
		}
	}
	found := s.lookForAll(ctx, s.store.all())
	if err := ctx.Err(); err != nil { // what was not found may well be there
		return err
	}
	var endpoints []network.Endpoint
	for i := range found {
		f := &found[i]
		if errors.Is(f.err, fault.NotFound) {
			continue
		}
		if err := s.resume(f); err != nil {
			return err
		}
		if f.record.Endpoint != nil {
			endpoints = append(endpoints, *f.record.Endpoint)
		}
	}
	if err := s.cfg.Networks.Restore(ctx, endpoints); err != nil {
		return err
	}
	for _, f := range found {
		r, l := f.record, s.lives.of(f.record.ID)
		if errors.Is(f.err, fault.NotFound) {
			s.settle(r, l)
			continue
		}
		if f.err != nil {
			s.cfg.Log.Error("a container cannot be taken over yet", "container", r.ID, "err", f.err)
		}
		run, _ := l.begin(f.keeper, f.err)
		if f.keeper != nil {
			s.execs.resume(r, f.keeper, f.execs)
		}
		s.health.resume(r)
		s.watchers.Go(func() { s.watch(r, l, run) })
	}
	s.logs.resume(s.store.all())
	return nil
}

// finding is what was found of a container's supervising process: a connection,
// or fault.NotFound for none, or why it cannot be talked to.
type finding struct {
	record Record
	keeper *supervise.Keeper
	err    error
	execs  []supervise.ExecStatus
}

// lookForAll looks for the supervising process of each container, of all at
// once: one that does not answer holds nobody up.
func (s *Service) lookForAll(ctx context.Context, records []Record) []finding {
	found := make([]finding, len(records))
	var looking sync.WaitGroup
	for i, r := range records {
		looking.Go(func() { found[i] = s.lookFor(ctx, r) })
	}
	looking.Wait()
	return found
}

func (s *Service) lookFor(ctx context.Context, r Record) finding {
	keeper, err := s.connect(ctx, r.ID)
	switch {
	case err != nil:
		return finding{record: r, err: err}
	case keeper.Status().Phase != supervise.PhaseCreated:
		return finding{record: r, keeper: keeper, execs: s.execsOf(keeper)}
	}
	// Started by nobody: the daemon died in between.
	if err := end(ctx, keeper); err != nil {
		s.cfg.Log.Error("a container that was never started cannot be ended", "container", r.ID, "err", err)
	}
	os.Remove(filepath.Join(s.bundleDir(r.ID), supervise.ExitName)) // it had no run that could end
	return finding{record: r, err: fault.New(fault.NotFound, "it was never started")}
}

// resume makes the record of a container agree with its living process.
func (s *Service) resume(f *finding) error {
	updated, err := s.store.note(f.record.ID, func(p *Progress) error {
		if !p.State.Up() {
			p.ManuallyStopped = false // that was before this run
			p.State = Running
		}
		if f.keeper != nil {
			p.runs(f.keeper.Status())
		}
		p.Endpoint = loadEndpoint(s.bundleDir(f.record.ID))
		p.Health = loadHealth(s.bundleDir(f.record.ID), f.record.Config, p.Health)
		return nil
	})
	f.record = updated
	return err
}

// errOver is what a run meets that ended before this daemon began.
var errOver = fault.New(fault.Conflict, "the container has ended")

// settle records a container without a process.
func (s *Service) settle(r Record, l *live) {
	exit, err := supervise.ReadExit(s.bundleDir(r.ID))
	switch {
	case err == nil, r.State.Up():
		if err != nil {
			exit = supervise.Exit{Code: 255, ExitedAt: time.Now()}
			if _, statErr := os.Stat(s.bundleDir(r.ID)); statErr == nil { // the same boot
				exit = s.lost(r, err)
			}
		}
		if !r.State.Up() {
			r.State = Running // it ended before anybody could write that it ran
			if _, err := s.store.note(r.ID, func(p *Progress) error { p.State = Running; return nil }); err != nil {
				s.cfg.Log.Error("cannot record a container's run", "container", r.ID, "err", err)
			}
		}
		run, _ := l.begin(nil, errOver)
		s.finish(r, l, run, exit)
	case r.State == Restarting:
		s.dropBundle(r)
		giveUp := l.retrying()
		s.watchers.Go(func() { s.tryAgain(r, l, giveUp) })
	case r.State == Exited && beginsAgain(r):
		s.dropBundle(r)
		r, err := s.store.note(r.ID, func(p *Progress) error { p.State = Restarting; return nil })
		if err != nil {
			s.cfg.Log.Error("cannot record a container's restart", "container", r.ID, "err", err)
		}
		giveUp := l.retrying()
		s.watchers.Go(func() { s.tryAgain(r, l, giveUp) })
	default:
		s.dropBundle(r)
	}
}

// dropBundle clears up after a start that the daemon did not survive. A
// container that removes itself goes if it had begun, or is of another boot.
func (s *Service) dropBundle(r Record) {
	dir := s.bundleDir(r.ID)
	_, err := os.Stat(dir)
	begun := err == nil
	if begun {
		err = errors.Join(s.collect(r.ID), os.RemoveAll(dir))
		if err != nil {
			s.cfg.Log.Error("a leftover bundle cannot be cleared", "container", r.ID, "err", err)
		}
	}
	if r.autoRemove() && (begun || r.Boot != s.boot) {
		s.autoRemove(r)
	}
}

// end ends a run that nobody wants, and with it its supervising process.
func end(ctx context.Context, keeper *supervise.Keeper) error {
	defer keeper.Close()
	ctx, cancel := context.WithTimeout(ctx, cleanGrace)
	defer cancel()
	if err := keeper.Kill(ctx); err != nil {
		return err
	}
	if _, err := keeper.Wait(ctx); err != nil {
		return err
	}
	return keeper.Release(ctx)
}

// dropOrphans ends what runs without a record: a container that was being
// removed, or that removed itself.
func (s *Service) dropOrphans(ctx context.Context) error {
	dirs, err := os.ReadDir(filepath.Join(s.cfg.ExecRoot, "c"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if _, err := s.store.find(d.Name()); err == nil || s.store.damaged[d.Name()] {
			continue
		}
		dir := s.bundleDir(d.Name())
		if strings.HasSuffix(d.Name(), removingSuffix) { // of a run that is over; its container may run again
			s.dropDir(dir)
			continue
		}
		keeper, err := s.connect(ctx, d.Name())
		switch {
		case err == nil:
			err = end(ctx, keeper)
		case errors.Is(err, fault.NotFound):
			err = s.collect(d.Name())
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err != nil {
			s.cfg.Log.Error("a process that belongs to no container cannot be ended", "dir", dir, "err", err)
			continue // the next daemon tries again
		}
		s.dropDir(dir)
	}
	return nil
}

// dropDir deletes what nobody needs any more. What cannot be deleted stays.
func (s *Service) dropDir(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		s.cfg.Log.Error("what is left of a run cannot be deleted", "dir", dir, "err", err)
	}
}
