package container

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
)

// Rename gives a container another name, running or not. The old one is free
// when it returns, and the new one survives power loss.
func (s *Service) Rename(ctx context.Context, nameOrID, name string) error {
	if nameOrID == "" || name == "" {
		return fault.New(fault.Invalid, "Neither old nor new names may be empty")
	}
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	old, wanted := r.Name, strings.TrimPrefix(name, "/")
	if wanted == old {
		return fault.New(fault.Invalid, "Renaming a container with the same name as its current name")
	}
	err = create.CheckName("/" + wanted)
	if err == nil {
		err = s.store.Reserve(wanted, r.ID)
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "Error when allocating new name: %w", err)
	}
	if _, err := s.store.Amend(r.ID, func(c *record.Spec) error { c.Name = wanted; return nil }); err != nil {
		s.store.Unreserve(wanted, r.ID)
		return err
	}
	if r.State.Up() {
		if err := (&connection{containers: s, r: r}).renamed(context.WithoutCancel(ctx), wanted); err != nil {
			s.cfg.Log.Error("a renamed container keeps its old name on its networks until it is started again", "container", r.ID, "err", err)
		}
	}
	s.publish(r, events.ActionRename, "oldName", "/"+old)
	return nil
}
