package network

import (
	"context"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/internal/undo"
)

// Create makes a network. When it returns without an error the network is there
// also after a crash; after an error nothing of it is. The kinds are Docker's:
// Conflict for a name that is taken, Forbidden for a subnet that is, Invalid or,
// where Docker's status is 500, Internal for what cannot be, NotFound for a driver
// that is not there. What is taken and has no effect is told of in the answer.
func (s *Service) Create(ctx context.Context, req wire.CreateRequest) (_ wire.CreateResponse, err error) {
	if err := s.begin(); err != nil {
		return wire.CreateResponse{}, err
	}
	defer s.tasks.Done()
	l, err := s.planner.plan(ctx, req)
	if err != nil {
		return wire.CreateResponse{}, err
	}
	var back undo.Stack
	defer back.OnError(&err)
	if err := s.lans.reserve(l); err != nil {
		return wire.CreateResponse{}, err
	}
	back.Push(func() error { s.lans.strike(l); return nil })
	if !l.ConfigOnly {
		if err := s.addressing.takeSubnets(ctx, l, false); err != nil {
			return wire.CreateResponse{}, err
		}
		back.Push(func() error { l.dropSubnets(); return nil })
		if err := s.raiser.bringUp(ctx, l); err != nil {
			return wire.CreateResponse{}, err
		}
		back.Push(func() error { return s.raiser.takeDown(context.WithoutCancel(ctx), l) })
	}
	if err := s.store.put(l.record); err != nil {
		return wire.CreateResponse{}, err
	}
	s.lans.setUp(l)
	s.publishEvent(l, events.ActionCreate)
	return wire.CreateResponse{ID: l.ID, Warning: l.opts.warning()}, nil
}

// publishEvent tells of what happened to a network.
func (s *Service) publishEvent(l *lan, action events.Action) {
	if s.events == nil {
		return
	}
	s.events.Publish(events.NetworkEventType, action, events.Actor{ID: l.ID, Attributes: map[string]string{"name": l.Name, "type": l.Driver}})
}
