package container

import (
	"context"
	"errors"

	"github.com/tarehq/tare/container/mounts"
	"github.com/tarehq/tare/container/view"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/supervise"
)

// seen is the view of a container's root, and what it needs.
type seen struct {
	*view.View
	sources *mounts.Sources // what is mounted in that of a container that does not run; else nil
	unlock  func()          // nil but to write into such a one
}

// close lets the root go: first the mounts, then the container.
func (v *seen) close() {
	v.Close()
	if v.sources != nil {
		v.sources.Close()
	}
	if v.unlock != nil {
		v.unlock()
	}
}

// see opens the root of a container: as its processes have it, or if it does not
// run as Docker has it then, with its bind mounts and the engine's files, without
// what is in memory. No operation on a container is waited for or kept waiting, but
// by one to write into one that does not run.
func (f *Files) see(ctx context.Context, r Record, write bool) (*seen, error) {
	s := f.containers
	for {
		v, err := f.live(ctx, r)
		if v != nil || err != nil {
			return v, err
		}
		if !write {
			v, err := f.mounted(ctx, &r, false)
			if err != nil {
				if _, gone := s.store.Find(r.ID); gone != nil { // and its layer with it
					return nil, gone
				}
			}
			if !errors.Is(err, view.ErrNoPlace) {
				return v, err
			}
		}
		locked, unlock, err := s.lock(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		if r = locked; r.State.Up() { // it started meanwhile
			unlock()
			continue
		}
		v, err = f.mounted(ctx, &r, true)
		if err != nil {
			unlock()
			return nil, err
		}
		v.unlock = unlock
		return v, nil
	}
}

// live opens the root of a container that runs; nil and nil when it does not.
func (f *Files) live(ctx context.Context, r Record) (*seen, error) {
	s := f.containers
	for r.State.Up() {
		root, err := supervise.OpenRoot(s.bundles.path(r.ID))
		if err == nil {
			return &seen{View: view.Of(root)}, nil
		}
		if !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.NotFound) {
			return nil, err
		}
		// Its process has ended, and that will be on record soon.
		if _, ended, err := s.lives.running(r); err == nil {
			select {
			case <-ended:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		} else if !errors.Is(err, fault.Conflict) {
			return nil, err
		}
		if r, err = s.store.Find(r.ID); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// mounted mounts the root of a container that does not run, in a mount
// namespace of its own that nobody else sees. To be written to it needs the
// operation lock; otherwise nothing of it is changed.
func (f *Files) mounted(ctx context.Context, r *Record, write bool) (*seen, error) {
	root, err := f.containers.rootOf(ctx, r)
	if err != nil {
		return nil, err
	}
	var users *overlayfs.Users
	if r.Users != nil {
		made, err := userns.Make(r.Users, false)
		if err != nil {
			return nil, err
		}
		defer made.Close()
		users = seenBy(r.Users, made.User)
	}
	sources, err := f.containers.Mounts.Open(ctx, r, users)
	if err != nil {
		return nil, err
	}
	v, err := view.Mount(root, sources.List, view.Options{Users: users, Write: write, Volatile: r.AutoRemove(), ReadOnly: r.HostConfig.ReadonlyRootfs})
	if err != nil {
		return nil, errors.Join(err, sources.Close())
	}
	return &seen{View: v, sources: sources}, nil
}
