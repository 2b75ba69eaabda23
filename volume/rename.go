package volume

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"strings"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// Rename gives a local volume that no container uses another name. Containers name
// their volumes, those that do not run too. One without a name of its own has one
// from then on.
func (s *Service) Rename(ctx context.Context, name, to string) (wire.Volume, error) {
	r, err := s.rename(ctx, name, to)
	if err != nil {
		return wire.Volume{}, fault.New(fault.KindOf(err), "rename %s: %w", name, err)
	}
	return s.wire(r, nil), nil
}

func (s *Service) rename(ctx context.Context, name, to string) (r Record, err error) {
	if err := CheckName(to); err != nil {
		return r, err
	}
	if name == to {
		return r, fault.New(fault.Invalid, "it has that name")
	}
	for _, n := range []string{min(name, to), max(name, to)} { // in one order for all who take two
		unlock, err := s.ops.Lock(ctx, n)
		if err != nil {
			return r, err
		}
		defer unlock()
	}
	old, err := s.find("get", name)
	if err != nil {
		return r, err
	}
	if old.Driver != Local {
		return r, fault.New(fault.NotImplemented, "its driver %s names it: only local volumes can be renamed", old.Driver)
	}
	if ids := s.usersOf()[name]; len(ids) > 0 {
		return r, fault.New(fault.Conflict, "volume is in use - [%s]: remove the containers, or clone it under the new name", strings.Join(ids, ", "))
	}
	if _, err := os.Lstat(s.dir(to)); !errors.Is(err, fs.ErrNotExist) {
		return r, fault.New(fault.Conflict, "volume %s exists already: remove it, or choose another name", to)
	}
	r = old
	r.Name, r.Was, r.Labels = to, name, maps.Clone(old.Labels)
	delete(r.Labels, AnonymousLabel)
	if err := s.moveLocked(old, r); err != nil {
		return old, err
	}
	s.events.Publish(events.VolumeEventType, events.ActionRename, events.Actor{ID: r.Name, Attributes: map[string]string{"driver": r.Driver, "oldName": name}})
	return r, nil
}

// moveLocked changes the record before the name: until then load takes it back.
func (s *Service) moveLocked(old, r Record) error {
	if err := writeRecord(s.dir(old.Name), r, true); err != nil {
		return err
	}
	if err := os.Rename(s.dir(old.Name), s.dir(r.Name)); err != nil {
		return errors.Join(err, writeRecord(s.dir(old.Name), old, true))
	}
	s.mu.Lock()
	delete(s.volumes, old.Name)
	s.volumes[r.Name] = r
	s.mu.Unlock()
	return atomicfile.SyncDir(s.root)
}

// unrename takes back a rename that a crash cut off.
func (s *Service) unrename(r Record) (Record, error) {
	r.Name, r.Was = r.Was, ""
	return r, writeRecord(s.dir(r.Name), r, true)
}
