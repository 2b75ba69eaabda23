package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
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
		if dir := s.bundleDir(r.ID); r.State == Running || r.autoRemove() {
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
				return err
			}
		}
	}
	type run struct {
		record Record
		keeper *supervise.Keeper
		err    error
	}
	var runs []run
	var endpoints []network.Endpoint
	for _, r := range s.store.all() {
		keeper, err := supervise.Connect(ctx, s.bundleDir(r.ID))
		alive := err == nil && keeper.Status().Phase != supervise.PhaseCreated
		if err == nil && !alive { // started by nobody: the daemon died in between
			if err := end(ctx, keeper); err != nil {
				s.cfg.Log.Error("a container that was never started cannot be ended", "container", r.ID, "err", err)
			}
			os.Remove(filepath.Join(s.bundleDir(r.ID), supervise.ExitName)) // it had no run that could end
			err, keeper = fault.New(fault.NotFound, "it was never started"), nil
		}
		if alive || errors.Is(err, fault.Unavailable) {
			if r, err2 := s.resume(r, keeper); err2 != nil {
				return err2
			} else if r.Endpoint != nil {
				endpoints = append(endpoints, *r.Endpoint)
			}
		}
		runs = append(runs, run{r, keeper, err})
	}
	if err := s.cfg.Networks.Restore(ctx, endpoints); err != nil {
		return err
	}
	for _, run := range runs {
		r, err := s.store.find(run.record.ID)
		if err != nil {
			continue
		}
		l := s.live(r.ID)
		switch {
		case run.err == nil:
			l.adopt(run.keeper)
			s.watchers.Go(func() { s.watch(r, l, run.keeper) })
		case errors.Is(run.err, fault.Unavailable): // runs, but speaks a newer protocol
			l.mu.Lock()
			l.refused = run.err
			l.mu.Unlock()
			s.cfg.Log.Error("a container cannot be taken over", "container", r.ID, "err", run.err)
		default:
			s.settle(r, l)
		}
	}
	return nil
}

// resume makes the record of a container agree with its living process.
func (s *Service) resume(r Record, keeper *supervise.Keeper) (Record, error) {
	if keeper == nil {
		return r, nil
	}
	status := keeper.Status()
	return s.store.update(r.ID, func(p *Progress) error {
		p.State, p.Pid, p.StartedAt = Running, status.Pid, status.StartedAt
		if p.Endpoint == nil {
			p.Endpoint = loadEndpoint(s.bundleDir(r.ID))
		}
		return nil
	})
}

// settle records a container without a process.
func (s *Service) settle(r Record, l *live) {
	exit, err := supervise.ReadExit(s.bundleDir(r.ID))
	switch {
	case err == nil, r.State == Running:
		if err != nil {
			exit = supervise.Exit{Code: 255, ExitedAt: time.Now()}
			if _, statErr := os.Stat(s.bundleDir(r.ID)); statErr == nil { // the same boot
				exit = s.lost(r, err)
			}
		}
		if r.State != Running {
			r.State = Running // it ended before anybody could write that it ran
			if _, err := s.store.update(r.ID, func(p *Progress) error { p.State = Running; return nil }); err != nil {
				s.cfg.Log.Error("cannot record a container's run", "container", r.ID, "err", err)
			}
		}
		l.adopt(nil)
		s.finish(r, l, nil, exit)
	case r.State == Restarting:
		s.dropBundle(r)
		s.watchers.Go(func() { s.tryAgain(r, l) })
	case r.State == Exited && r.HostConfig.RestartPolicy.IsAlways():
		// Stopped by hand, until now: that is what sets unless-stopped apart.
		s.dropBundle(r)
		r, err := s.store.update(r.ID, func(p *Progress) error { p.State = Restarting; return nil })
		if err != nil {
			s.cfg.Log.Error("cannot record a container's restart", "container", r.ID, "err", err)
		}
		s.watchers.Go(func() { s.tryAgain(r, l) })
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
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		keeper, err := supervise.Connect(ctx, dir)
		switch {
		case err == nil:
			if err := end(ctx, keeper); err != nil {
				s.cfg.Log.Error("a process that belongs to no container cannot be ended", "dir", dir, "err", err)
			}
		case errors.Is(err, fault.Unavailable):
			s.cfg.Log.Error("a process that belongs to no container cannot be ended", "dir", dir, "err", err)
			continue
		default:
			if err := s.collect(d.Name()); err != nil {
				s.cfg.Log.Error("a process that belongs to no container cannot be ended", "dir", dir, "err", err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
