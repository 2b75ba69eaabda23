package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/files"
)

// RemoveOptions as in DELETE /containers/{id}.
type RemoveOptions struct {
	Force   bool // kill it first if it runs
	Volumes bool // its anonymous volumes too
	Link    bool // the container is not removed, its link PARENT/ALIAS is
}

// Remove deletes a container. It is gone, its name free, when Remove returns;
// its files vanish in the background.
func (s *Service) Remove(ctx context.Context, nameOrID string, o RemoveOptions) error {
	if o.Link {
		return s.unlink(ctx, nameOrID)
	}
	found, err := s.store.Find(nameOrID)
	if err != nil {
		return err
	}
	r, unlock, err := s.lock(ctx, found.ID)
	if errors.Is(err, fault.NotFound) { // removed while we waited: as asked
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	if r.State.Live() {
		if !o.Force && r.State == record.Paused {
			return fault.New(fault.Conflict, "cannot remove container %q: container is paused and must be unpaused first", nameOrID)
		}
		if !o.Force {
			return fault.New(fault.Conflict, "cannot remove container %q: container is %s: stop the container before removing or force remove", nameOrID, r.State)
		}
		if err := (&halt{containers: s, record: r, rest: true}).kill(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("cannot remove container %q: could not kill container: %w", nameOrID, err)
		}
		if err := s.lives.of(r.ID).told(ctx); err != nil {
			return err
		}
		if r, err = s.store.Find(r.ID); err != nil {
			return nil
		}
	}
	return s.removeLocked(r, o.Volumes)
}

// lookAround is for how long a container that has ended can still be looked at when
// somebody follows events: who hears of the end inspects it, and finds it with
// Docker, whose removal takes about as long. Compose 2 breaks if not.
const lookAround = 100 * time.Millisecond

// removeLocked removes a container that does not run, under its operation
// lock. Its directory goes first, with the record: what is left after a crash
// has no owner any more and is collected. With volumes those without a name of
// their own go, too.
func (s *Service) removeLocked(r Record, volumes bool) error {
	if since := time.Since(r.FinishedAt); s.cfg.Events.Subscribers() > 0 && since >= 0 {
		time.Sleep(lookAround - since)
	}
	s.Logbook.Forget(&r)
	rest, err := s.store.Remove(r.ID)
	if err != nil {
		return err
	}
	s.freeLabels(&r)
	s.links.Forget(&r)
	s.tasks.Go(func() { s.bundles.drop(rest) })
	err = s.cfg.Snapshots.Remove(r.ID)
	l := s.lives.forget(r.ID)
	s.Execs.sessions.Forget(r.ID)
	s.Stats.Forget(r.ID)
	s.publish(r, events.ActionDestroy)
	if volumes {
		err = errors.Join(err, s.Mounts.Remove(context.Background(), &r))
	}
	if l != nil {
		l.dropPending()
		l.tell(r, true)
	}
	return err
}

// unlink removes the link PARENT/ALIAS, as docker rm --link has it: the two
// containers stay.
func (s *Service) unlink(ctx context.Context, name string) error {
	parent, alias, ok := strings.Cut(strings.Trim(name, "/"), "/")
	if !ok {
		if _, err := s.store.Find(name); err != nil {
			return err
		}
		return fault.New(fault.Invalid, "Conflict, cannot remove the default link name of the container")
	}
	r, unlock, err := s.lock(ctx, parent)
	if errors.Is(err, fault.NotFound) {
		return record.NoSuch(name)
	}
	if err != nil {
		return err
	}
	defer unlock()
	if !slices.ContainsFunc(r.Links, func(l record.Link) bool { return l.Alias == alias }) {
		return record.NoSuch(name)
	}
	s.links.Drop(&r)
	r, err = s.store.Amend(r.ID, func(c *record.Spec) error {
		c.Links = slices.DeleteFunc(slices.Clone(c.Links), func(l record.Link) bool { return l.Alias == alias })
		return nil
	})
	if err != nil {
		return err
	}
	s.links.Add(&r)
	if !r.State.Live() {
		return nil
	}
	return files.Readdress(s.store.Path(r.ID, "hosts"), alias, netip.Addr{})
}
