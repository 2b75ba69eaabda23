package network

import (
	"context"
	"log/slog"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewalld"
)

// load takes up the stored networks, with their subnets, so that nobody else
// takes these. One whose subnet is taken stays, and tells those who join it.
func (s *Service) load(ctx context.Context) error {
	records, err := s.store.load()
	if err != nil {
		return err
	}
	slices.SortFunc(records, func(a, b record) int { return a.Created.Compare(b.Created) })
	for _, r := range records {
		l := &lan{record: r, state: lanUp}
		if s.lans.named(l.Name) != nil {
			slog.Error("two stored networks have one name, the newer is left out", "network", l.Name, "id", l.ID)
			continue
		}
		s.lans.put(l)
		if l.ConfigOnly {
			continue
		}
		if l.Driver == networkBridge {
			l.opts, l.failure = readBridgeOptions(l.Options)
		}
		if l.failure == nil {
			l.failure = s.addressing.takeSubnets(ctx, l, true)
		}
		if l.failure != nil {
			slog.Error("a stored network cannot be used", "network", l.Name, "err", l.failure)
			continue
		}
		l.resume(s.store.cursors(l.ID))
	}
	return nil
}

// Restore takes up the sandboxes that live on from an earlier run, and must be
// called once before Attach, with none on a first run. It makes the networks'
// bridges that are missing, as after a boot, and deletes those whose network is
// gone. It replaces the table in one transaction, so no packet meets a moment
// without rules, deletes the interfaces that no endpoint names, and starts to
// fill the pools. It is fault.Conflict when containers of another identity are
// on the default bridge. A network that cannot be made is told of and left: who
// joins it tries again.
func (s *Service) Restore(ctx context.Context, sandboxes []Sandbox) error {
	s.raiser.raiseAll(ctx)
	if err := s.raiser.lowerOrphans(); err != nil {
		return err
	}
	if err := s.adopt(sandboxes); err != nil {
		return err
	}
	if err := s.raiser.refuseStrangers(ctx); err != nil {
		return err
	}
	watch, err := openWatch(s.cfg.Name)
	if err != nil {
		return err
	}
	s.watch = watch
	if err := s.rules.replace(); err != nil {
		return err
	}
	s.rules.rejoin()
	orphans, err := s.raiser.reconcilePorts()
	if err != nil {
		return err
	}
	if err := s.restoreRates(); err != nil {
		return err
	}
	s.naming.all(ctx, s.sandboxes.all())
	s.beginBackground(ctx, orphans)
	return nil
}

// adopt enters the sandboxes and claims their addresses. An endpoint whose
// interface is gone was disconnected, and the daemon ended before anybody could
// store that.
func (s *Service) adopt(sandboxes []Sandbox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.restored || s.closed {
		return fault.New(fault.Internal, "networks: restore must come once, before attach")
	}
	for _, b := range sandboxes {
		b.Endpoints = slices.DeleteFunc(slices.Clone(b.Endpoints), func(e Endpoint) bool {
			return e.Driver == networkBridge && len(b.Endpoints) > 1 && !s.host.Has(e.HostInterface)
		})
		if !b.publishes() {
			b.Ports = nil // given up with it
		}
		s.bare(&b) // the daemon before may have been told otherwise
		for i := range b.Endpoints {
			e := &b.Endpoints[i]
			l := s.lans.get(e.NetworkID)
			if l == nil {
				continue
			}
			if e.Address.IsValid() {
				l.adopt(e.Address)
			}
			if e.Address6.IsValid() {
				l.adopt(e.Address6)
			}
		}
		s.sandboxes.enter(b, nil)
	}
	for _, l := range s.lans.all() {
		if s.store.dir == "" {
			l.resume(nil)
		}
	}
	return nil
}

// beginBackground starts what removes interfaces and fills the pools. It
// outlives the call and ends with Close.
func (s *Service) beginBackground(ctx context.Context, orphans []removal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.restored = true
	s.remover.doom(orphans...)
	s.pools.begin(ctx, s.lans.named(networkBridge))
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.tasks.Go(func() { s.remover.run(ctx) })
	s.tasks.Go(func() { s.watch.keep(ctx, s.rules.repair) })
	s.tasks.Go(func() { firewalld.Watch(ctx, s.rules.rejoin) })
}
