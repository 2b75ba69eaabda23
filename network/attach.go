package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/publish"
)

// Attach gives a container a network namespace with a place on each of the
// networks that it wants, and publishes its ports. After an error nothing of it
// is left. The kinds are NotFound for an unknown network, Invalid and
// NotImplemented for what cannot be, Unavailable when the addresses are
// exhausted, Forbidden for a requested address that is taken, Internal for a port
// that is taken (Docker's status 500).
func (s *Service) Attach(ctx context.Context, r Request) (*Attachment, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.tasks.Done()
	if err := publish.Check(r.Ports); err != nil {
		return nil, err
	}
	lans, err := s.lans.join(r.Wants)
	if err != nil {
		return nil, setUpError(err)
	}
	defer s.lans.unjoin(lans)
	if err := s.raiser.reviveAll(ctx, lans); err != nil {
		return nil, setUpError(err)
	}
	a, err := s.attach(ctx, r, lans)
	if err != nil {
		return nil, setUpError(err)
	}
	for _, l := range lans {
		s.pools.want(ctx, l)
	}
	return a, nil
}

func setUpError(err error) error {
	return fault.New(fault.KindOf(err), "failed to set up container networking: %w", err)
}

// begin counts an operation that Close has to wait for.
func (s *Service) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fault.New(fault.Unavailable, "the networks are closed")
	case !s.restored:
		return fault.New(fault.Internal, "networks: restore must come before attach")
	}
	s.tasks.Add(1)
	return nil
}

// bare notes whether rules lead to the sandbox, or nothing but a relay does.
func (s *Service) bare(b *Sandbox) {
	b.Bare4, b.Bare6 = s.cfg.NoRules && !s.cfg.NoProxy, s.cfg.NoRules6 && !s.cfg.NoProxy
}

func (s *Service) attach(ctx context.Context, r Request, lans []*lan) (_ *Attachment, err error) {
	a := &Attachment{Sandbox: Sandbox{ID: newID(), ContainerID: r.ContainerID, Name: r.Name, Hostname: r.Hostname, Domainname: r.Domainname, DNS: r.DNS}}
	s.bare(&a.Sandbox)
	var b *box
	defer func() {
		if err != nil {
			s.takeBack(a, b, lans)
		}
	}()
	if len(lans) > 0 && r.NetNS == nil {
		b = s.pools.fitting(lans[0], r.Wants[0])
	}
	if b != nil && !r.ReadOnlySys {
		b.DropSys()
	}
	for i, w := range r.Wants {
		var e Endpoint
		if i == 0 && b != nil && b.waiting != nil {
			e, err = b.occupy(lans[0], w, &a.Sandbox)
		} else {
			e, err = s.fitter.place(lans[i], w, &a.Sandbox)
		}
		if err != nil {
			return nil, err
		}
		a.Endpoints = append(a.Endpoints, e)
	}
	if err = s.publisher.reserve(a, r.Ports); err != nil {
		return nil, err
	}
	if b, err = s.fitter.equip(ctx, lans, &a.Sandbox, b, r.NetNS); err != nil {
		return nil, err
	}
	if a.NetNS, err = b.Share(); err != nil {
		return nil, err
	}
	prepared := b.prepared
	b.prepared = nil // it is handed over
	held, err := s.naming.set(ctx, a.Sandbox, b.NS, prepared)
	a.Sockets = append(a.Sockets, held...)
	if err != nil {
		return nil, err
	}
	if err = s.lans.moveGate(ctx, &a.Sandbox); err != nil {
		return nil, err
	}
	if err = s.rules.publish(a.Sandbox, b); err != nil {
		return nil, connectivityError(a.Sandbox, err)
	}
	for i := range a.Endpoints {
		b.announce(&a.Endpoints[i])
	}
	a.Sys, b.Sys = b.Sys, nil
	s.fitter.hold(a.ID, b)
	return a, nil
}

// takeBack undoes what there is of an attachment. Its addresses stay out of use
// until the interfaces that have them are gone.
func (s *Service) takeBack(a *Attachment, b *box, lans []*lan) {
	closeAll(a.Sockets)
	if a.NetNS != nil {
		a.NetNS.Close()
	}
	s.naming.drop(a.ID)
	if b == nil {
		for i := range a.Endpoints {
			s.remover.doom(removal{network: lans[i].asks(), after: func() { s.fitter.giveUp(lans[i], &a.Endpoints[i]) }})
		}
		return
	}
	s.fitter.abandon(b, a.Endpoints)
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}
