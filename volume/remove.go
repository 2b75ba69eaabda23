package volume

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/fault"
)

// Remove deletes a volume that no container uses, running or not. With force it
// is no error when there is none, and one whose plugin cannot be asked is
// forgotten.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	unlock, err := s.ops.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := s.find("get", name)
	if err != nil {
		if v := s.probe(ctx, name); v != nil { // it is a plugin's, and has no record
			r, err = Record{Name: name, Driver: v.driver}, nil
		}
	}
	if err != nil {
		if force {
			return nil
		}
		return err
	}
	return s.removeLocked(ctx, r, force)
}

// removeLocked removes a volume under its name's lock.
func (s *Service) removeLocked(ctx context.Context, r Record, force bool) error {
	if ids := s.usersOf()[r.Name]; len(ids) > 0 {
		return fault.New(fault.Conflict, "remove %s: volume is in use - [%s]", r.Name, strings.Join(ids, ", "))
	}
	err := s.release(ctx, &r, force)
	if err == nil {
		err = s.withdraw(r.Name)
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "remove %s: %w", r.Name, err)
	}
	s.tell(r, events.ActionDestroy)
	return nil
}

// release takes away what a volume has beside its directory: a mount that was left
// on its data, whose content is not the volume's to delete, or what its plugin has.
// What the host's administrator has mounted there is in the way.
func (s *Service) release(ctx context.Context, r *Record, force bool) error {
	if r.Driver == Local {
		if needsMount(r) {
			return s.unmountLocal(r)
		}
		if is, err := isMounted(s.data(r.Name)); is && err == nil {
			return fault.New(fault.Conflict, "something is mounted at %s, which would be deleted with it: unmount it first", s.data(r.Name))
		}
		return nil
	}
	err := s.ask(ctx, r.Driver, "Remove", volumeName{r.Name}, nil)
	if err != nil && force {
		s.log.Error("a volume is forgotten that its plugin could not remove", "volume", r.Name, "driver", r.Driver, "err", err)
		return nil
	}
	return err
}
