package volume

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/fault"
)

// Remove deletes a volume that no container uses, running or not. With force it
// is no error when there is none.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	unlock, err := s.ops.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := s.find("get", name)
	if err != nil {
		if force {
			return nil
		}
		return err
	}
	return s.removeLocked(ctx, r)
}

// removeLocked removes a volume under its name's lock.
func (s *Service) removeLocked(_ context.Context, r Record) error {
	if ids := s.usersOf()[r.Name]; len(ids) > 0 {
		return fault.New(fault.Conflict, "remove %s: volume is in use - [%s]", r.Name, strings.Join(ids, ", "))
	}
	if err := s.withdraw(r.Name); err != nil {
		return fault.New(fault.KindOf(err), "remove %s: %w", r.Name, err)
	}
	s.tell(r, events.ActionDestroy)
	return nil
}
