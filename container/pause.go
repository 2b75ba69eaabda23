package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// Pause makes all processes of a container stand still until Unpause. It stays
// paused while no daemon runs.
func (s *Service) Pause(ctx context.Context, nameOrID string) error {
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if r.State == record.Paused {
		return fault.New(fault.Conflict, "Container %s is already paused", r.ID)
	}
	keeper, ended, err := s.lives.running(r)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := ofRun(r, ended, keeper.Pause(ctx)); err != nil {
		return fmt.Errorf("cannot pause container %s: %w", r.ID, err)
	}
	if _, err := s.store.Note(r.ID, func(p *record.Progress) error { p.State = record.Paused; return nil }); err != nil {
		return notRunning(r) // it ended just now
	}
	s.publish(r, events.ActionPause)
	return nil
}

// Unpause lets the processes of a paused container go on.
func (s *Service) Unpause(ctx context.Context, nameOrID string) error {
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if r.State != record.Paused {
		return fmt.Errorf("Container %s is not paused", r.ID) //nolint:staticcheck // Docker's words
	}
	keeper, ended, err := s.lives.running(r)
	if err != nil {
		return err
	}
	if err := s.wake(context.WithoutCancel(ctx), r, keeper, ended); err != nil {
		return fmt.Errorf("cannot resume container %s: %w", r.ID, err)
	}
	return nil
}

// wake lets a paused container go on. One that ended or was woken meanwhile is
// as asked.
func (s *Service) wake(ctx context.Context, r Record, keeper *supervise.Keeper, ended <-chan struct{}) error {
	err := ofRun(r, ended, keeper.Unpause(ctx))
	if errors.Is(err, fault.Conflict) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.store.Note(r.ID, func(p *record.Progress) error {
		if p.State == record.Paused {
			p.State = record.Running
		}
		return nil
	})
	if err == nil {
		s.publish(r, events.ActionUnPause)
	}
	return nil
}

// runs takes over what the supervising process tells of a run. The freezer is
// the kernel's, so whether it is paused is not read from disk.
func runs(p *record.Progress, status supervise.Status) {
	p.Pid, p.StartedAt = status.Pid, status.StartedAt
	switch {
	case status.Paused:
		p.State = record.Paused
	case p.State == record.Paused:
		p.State = record.Running
	}
}
