package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tarehq/tare/container/mounts"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/restart"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/aside"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// takeover connects to the containers that an earlier daemon left running,
// records the end of those that ended meanwhile, and takes back what belongs
// to nobody.
type takeover struct{ containers *Service }

// run is called once, before the service is used.
func (t *takeover) run(ctx context.Context) error {
	s := t.containers
	for _, r := range s.store.All() {
		// A run that ended, and the daemon before its end was recorded.
		if dir := s.bundles.path(r.ID); r.State.Up() || r.AutoRemove() {
			if err := os.Rename(dir+aside.Suffix, dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	if err := t.dropOrphans(ctx); err != nil {
		return err
	}
	t.dropLayers()
	found := t.lookForAll(ctx, s.store.All())
	if err := ctx.Err(); err != nil { // what was not found may well be there
		return err
	}
	var sandboxes []network.Sandbox
	var running []Record
	for i := range found {
		f := &found[i]
		if errors.Is(f.err, fault.NotFound) {
			continue
		}
		if err := t.resume(f); err != nil {
			return err
		}
		running = append(running, f.record)
		if f.record.Sandbox != nil {
			b := *f.record.Sandbox
			if f.keeper != nil {
				b.NetNSPath = fmt.Sprintf("/proc/%d/ns/net", f.keeper.Pid())
			}
			sandboxes = append(sandboxes, b)
		}
	}
	if err := s.cfg.Networks.Restore(ctx, sandboxes); err != nil {
		return err
	}
	s.cfg.Volumes.Restore(ctx, mounts.UsedVolumes(running))
	for _, f := range found {
		r, l := f.record, s.lives.of(f.record.ID)
		v := &vigil{containers: s, record: r, live: l}
		if errors.Is(f.err, fault.NotFound) {
			t.settle(v)
			continue
		}
		if f.err != nil {
			s.cfg.Log.Error("a container cannot be taken over yet", "container", r.ID, "err", f.err)
		}
		v.run, _ = l.begin(f.keeper, f.err)
		if f.keeper != nil {
			s.Execs.resume(r, f.keeper, f.execs)
		}
		s.Health.resume(r)
		if f.keeper != nil {
			t.settlePlaces(ctx, r)
		}
		s.tasks.Go(v.watch)
	}
	s.Logbook.Resume(s.store.All())
	return nil
}

// settlePlaces has the record of a running container tell which of its places
// are still there, and takes back those that nobody wishes: the daemon died while
// they were made or given up. Its ports are relayed from now on as this daemon has
// it, which may make no rules where the one before did, or the other way round.
func (t *takeover) settlePlaces(ctx context.Context, r Record) {
	s := t.containers
	if r.Sandbox == nil {
		return
	}
	c := &connection{containers: s, r: r}
	fail := func(err error) {
		if err != nil {
			s.cfg.Log.Error("a container's places on its networks are not as they should be", "container", r.ID, "err", err)
		}
	}
	now, known := s.cfg.Networks.Sandbox(r.Sandbox.ID)
	if known && (len(now.Endpoints) != len(r.Sandbox.Endpoints) || !slices.Equal(relays(&now), relays(r.Sandbox))) {
		fail(c.hold(ctx, &now, nil))
		fail(c.record(ctx, now))
		c.r.Sandbox = &now
	}
	places, wished := r.Places(), r.AllWishes()
	for _, e := range c.r.Sandbox.Endpoints {
		if !slices.ContainsFunc(places, func(p record.Place) bool { return p.Network == e.NetworkName || p.ID == e.NetworkID }) {
			fail(c.remove(ctx, e.NetworkID, wished))
			if updated, err := s.store.Find(r.ID); err == nil {
				c.r = updated
			}
		}
	}
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
func (t *takeover) lookForAll(ctx context.Context, records []Record) []finding {
	found := make([]finding, len(records))
	var looking sync.WaitGroup
	for i, r := range records {
		looking.Go(func() { found[i] = t.lookFor(ctx, r) })
	}
	looking.Wait()
	return found
}

func (t *takeover) lookFor(ctx context.Context, r Record) finding {
	s := t.containers
	keeper, err := s.bundles.connect(ctx, r.ID)
	switch {
	case err != nil:
		return finding{record: r, err: err}
	case keeper.Status().Phase != supervise.PhaseCreated:
		return finding{record: r, keeper: keeper, execs: s.Execs.told(keeper)}
	}
	// Started by nobody: the daemon died in between.
	if err := end(ctx, keeper); err != nil {
		s.cfg.Log.Error("a container that was never started cannot be ended", "container", r.ID, "err", err)
	}
	os.Remove(filepath.Join(s.bundles.path(r.ID), supervise.ExitName)) // it had no run that could end
	return finding{record: r, err: fault.New(fault.NotFound, "it was never started")}
}

// resume makes the record of a container agree with its living process.
func (t *takeover) resume(f *finding) error {
	s := t.containers
	if !f.record.State.Up() {
		// Nobody could write that it runs, as of one that removes itself. From here
		// on it may be paused, which a container that does not run cannot be.
		if _, err := s.store.Note(f.record.ID, func(p *record.Progress) error {
			p.ManuallyStopped = false // that was before this run
			p.State = record.Running
			return nil
		}); err != nil {
			return err
		}
	}
	updated, err := s.store.Agree(f.record.ID, func(p *record.Progress) error {
		if f.keeper != nil {
			runs(p, f.keeper.Status())
		}
		if p.Sandbox = loadSandbox(s.bundles.path(f.record.ID)); p.Sandbox != nil {
			p.NetworkIDs = record.NetworkIDs(p.Sandbox)
		}
		p.Health = loadHealth(s.bundles.path(f.record.ID), f.record.Config, p.Health)
		return nil
	})
	f.record = updated
	return err
}

// errOver is what a run meets that ended before this daemon began.
var errOver = fault.New(fault.Conflict, "the container has ended")

// settle records a container without a process.
func (t *takeover) settle(v *vigil) {
	s, r, l := t.containers, v.record, v.live
	exit, err := supervise.ReadExit(s.bundles.path(r.ID))
	switch {
	case err == nil, r.State.Up():
		if err != nil {
			exit = supervise.Exit{Code: 255, ExitedAt: time.Now()}
			if _, statErr := os.Stat(s.bundles.path(r.ID)); statErr == nil { // the same boot
				exit = v.lost(err)
			}
		}
		if !r.State.Up() {
			v.record.State = record.Running // it ended before anybody could write that it ran
			if _, err := s.store.Note(r.ID, func(p *record.Progress) error { p.State = record.Running; return nil }); err != nil {
				s.cfg.Log.Error("cannot record a container's run", "container", r.ID, "err", err)
			}
		}
		v.run, _ = l.begin(nil, errOver)
		v.finish(exit)
	case r.State == record.Restarting, r.State == record.Exited && restart.WantedAnew(&r):
		t.dropBundle(v)
		updated, err := s.store.Note(r.ID, func(p *record.Progress) error { p.State = record.Restarting; return nil })
		if err != nil {
			s.cfg.Log.Error("cannot record a container's restart", "container", r.ID, "err", err)
			return
		}
		v.record = updated
		giveUp := l.tries.Begin()
		s.tasks.Go(func() { v.tryAgain(giveUp) })
	default:
		t.dropBundle(v)
	}
}

// dropBundle clears up after a start that the daemon did not survive. A
// container that removes itself goes if it had begun, or is of another boot.
func (t *takeover) dropBundle(v *vigil) {
	s, r := t.containers, v.record
	dir := s.bundles.path(r.ID)
	_, err := os.Stat(dir)
	begun := err == nil
	if begun {
		err = errors.Join(s.bundles.collect(r.ID), os.RemoveAll(dir))
		if err != nil {
			s.cfg.Log.Error("a leftover bundle cannot be cleared", "container", r.ID, "err", err)
		}
	}
	if r.AutoRemove() && (begun || r.Boot != s.host.boot) {
		v.autoRemove()
	}
}

// dropOrphans ends what runs without a record: a container that was being
// removed, or that removed itself.
func (t *takeover) dropOrphans(ctx context.Context) error {
	s := t.containers
	dirs, err := os.ReadDir(s.bundles.dir)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if s.store.Has(d.Name()) || s.store.Damaged(d.Name()) { // not one that is called so
			continue
		}
		dir := s.bundles.path(d.Name())
		if id, over := strings.CutSuffix(d.Name(), aside.Suffix); over {
			t.dropRemain(id, dir)
			continue
		}
		keeper, err := s.bundles.connect(ctx, d.Name())
		switch {
		case err == nil:
			err = end(ctx, keeper)
		case errors.Is(err, fault.NotFound):
			err = s.bundles.collect(d.Name())
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if err != nil {
			s.cfg.Log.Error("a process that belongs to no container cannot be ended", "dir", dir, "err", err)
			continue // the next daemon tries again
		}
		s.bundles.drop(dir)
	}
	return nil
}

// dropRemain leaves what a run that is over left for a quiet moment, which may have
// been all. If its container runs again, the groups are that run's.
func (t *takeover) dropRemain(id, dir string) {
	s := t.containers
	if _, err := os.Stat(s.bundles.path(id)); err == nil {
		s.bundles.drop(dir)
		return
	}
	s.remains.add(remain{id: id, dir: dir})
}

// dropLayers deletes the writable layers of creates and removes that were cut
// off.
func (t *takeover) dropLayers() {
	s := t.containers
	for _, id := range s.cfg.Snapshots.Active() {
		if s.store.Has(id) || s.store.Damaged(id) {
			continue
		}
		if err := s.cfg.Snapshots.Remove(id); err != nil {
			s.cfg.Log.Error("the layer of a removed container cannot be deleted", "container", id, "err", err)
		}
	}
}
