package network

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network/firewalld"
	"github.com/tarehq/tare/network/link"
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
	s.raiseAll(ctx)
	if err := s.lowerOrphans(); err != nil {
		return err
	}
	if err := s.adopt(sandboxes); err != nil {
		return err
	}
	if err := s.refuseStrangers(ctx); err != nil {
		return err
	}
	watch, err := openWatch(s.cfg.Name)
	if err != nil {
		return err
	}
	s.watch = watch
	if err := errors.Join(s.rules.replace(), s.joinGuard()); err != nil {
		return err
	}
	s.rejoin()
	orphans, err := s.reconcilePorts()
	if err != nil {
		return err
	}
	if err := s.restoreRates(); err != nil {
		return err
	}
	s.renameAll(ctx)
	s.beginBackground(ctx, orphans)
	return nil
}

// driverPatience is how long the daemon's start waits for the drivers of networks,
// all together.
const driverPatience = 5 * time.Second

// raiseAll makes the networks' bridges, and what drivers make.
func (s *Service) raiseAll(ctx context.Context) {
	// Drivers that do not answer are asked again by those who join.
	ctx, cancel := context.WithTimeout(ctx, driverPatience)
	defer cancel()
	for _, l := range s.lans.all() {
		if predefined(l.Name) || l.ConfigOnly {
			continue
		}
		if l.failure == nil {
			l.failure = s.raiseStored(ctx, l)
		}
		if l.failure != nil {
			slog.Error("a network could not be made", "network", l.Name, "driver", l.Driver, "err", l.failure)
		}
	}
}

func (s *Service) raiseStored(ctx context.Context, l *lan) error {
	if l.Driver != networkBridge {
		d, err := s.drivers.find(ctx, l.Driver)
		if err != nil {
			return err
		}
		l.setDriver(d)
		if kept, ok := d.(Restorer); ok {
			return kept.Restore(ctx, l.Network)
		}
		return d.Create(ctx, l.Network)
	}
	b := s.bridgeOf(l)
	if _, err := b.raise(); err != nil {
		return err
	}
	s.lans.setBridge(l, b)
	return nil
}

// whyDown is why nobody can join a lan that is not up.
func (l *lan) whyDown(err error) error {
	if err == nil {
		err = errors.New("its bridge is gone")
	}
	return fault.New(fault.Internal, "the network %s is not up: %w", l.Name, err)
}

// reviveAll tries again to make those of the networks that could not be made.
func (s *Service) reviveAll(ctx context.Context, lans []*lan) error {
	for _, l := range lans {
		if err := s.revive(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// revive makes a network again that could not be made, or whose bridge somebody
// has deleted.
func (s *Service) revive(ctx context.Context, l *lan) error {
	if up, br := s.lans.stands(l); up && (br == nil || s.stands(br)) {
		return nil
	}
	unlock, err := s.working.Lock(ctx, l.ID)
	if err != nil {
		return err
	}
	defer unlock()
	s.endPool(l, true) // its namespaces are on no bridge
	if len(l.subnets()) == 0 && l.IPAM.Driver != driverNull {
		taken := &lan{record: l.record, opts: l.opts}
		if err := s.addressing.takeSubnets(ctx, taken, true); err != nil {
			return l.whyDown(err)
		}
		l.setSubnets(taken.nets)
	}
	if err := s.raiseStored(ctx, l); err != nil {
		return l.whyDown(err)
	}
	s.lans.mended(l)
	if l.Name == networkBridge {
		s.mu.Lock()
		s.startPoolLocked(ctx, l, s.spares)
		s.mu.Unlock()
	}
	if err := s.renewRules(); err != nil {
		return err
	}
	if err := firewalld.Join(l.Bridge); err != nil {
		return err
	}
	// Those that run on it. What is nobody's is being attached just now.
	_, err = s.reconcilePorts()
	return err
}

// stands tells whether the bridge is still the one that was raised.
func (s *Service) stands(b *bridge) bool {
	index, err := s.host.Index(b.Name)
	return err == nil && index == b.Index
}

// lowerOrphans deletes bridges of ours that are no network's: the daemon ended
// between two steps.
func (s *Service) lowerOrphans() error {
	links, err := link.Interfaces()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, l := range s.lans.all() {
		wanted[l.Bridge] = true
	}
	for _, l := range links {
		if l.Kind == "bridge" && !wanted[l.Name] && bytes.Equal(l.MAC, link.BridgeMAC(s.cfg.Identity, l.Name)) {
			if err := lowerBridge(l.Name); err != nil {
				return err
			}
		}
	}
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

// renameAll tells the names of those that live on.
func (s *Service) renameAll(ctx context.Context) {
	if s.names == nil {
		return
	}
	for _, b := range s.sandboxes.all() {
		held, err := s.names.Set(ctx, b, nil, nil)
		closeAll(held)
		if err != nil {
			slog.Error("the names of a container that runs on cannot be told", "container", b.ContainerID, "err", err)
		}
	}
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
	if l := s.lans.named(networkBridge); l != nil {
		s.startPoolLocked(ctx, l, s.spares)
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.tasks.Go(func() { s.remover.run(ctx) })
	s.tasks.Go(func() { s.keepTables(ctx) })
	s.tasks.Go(func() { firewalld.Watch(ctx, s.rejoin) })
}

// refuseStrangers fails when containers are on the bridge that a daemon of
// another identity left running: their addresses are not known here, and their
// published ports would go with the table.
func (s *Service) refuseStrangers(ctx context.Context) error {
	if s.cfg.Bridge == "" {
		return nil
	}
	known := s.interfaces()
	for deadline := time.Now().Add(claimPatience); ; {
		name, err := s.stranger(known)
		if name == "" || err != nil {
			return err
		}
		// Those of a daemon that was just killed vanish in the kernel's own time.
		if time.Now().After(deadline) || !pause(ctx, 10*time.Millisecond) {
			return fault.New(fault.Conflict, "containers of a tared with another data root are on the bridge %s (%s): end them, or choose another bridge by --bridge", s.cfg.Bridge, name)
		}
	}
}

// stranger finds an interface on the bridge that another identity made; "" is
// none.
func (s *Service) stranger(known map[string]bool) (string, error) {
	bridge, err := s.host.Index(s.cfg.Bridge)
	if err != nil {
		return "", err
	}
	links, err := link.Interfaces()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if l.Master == bridge && s.host.Strange(l) && !known[l.Name] {
			return l.Name, nil
		}
	}
	return "", nil
}

// interfaces are the names of the endpoints' ends on the bridge.
func (s *Service) interfaces() map[string]bool {
	names := map[string]bool{}
	for _, b := range s.sandboxes.all() {
		for _, e := range b.Endpoints {
			names[e.HostInterface] = true
		}
	}
	return names
}

// reconcilePorts compares the bridges' ports with the endpoints: it gives those
// that no endpoint names for removal, and puts back on their bridge those that
// lost it when it was made anew.
func (s *Service) reconcilePorts() (orphans []removal, err error) {
	links, err := link.Interfaces()
	if err != nil {
		return nil, err
	}
	wanted := s.lans.masters()
	for _, l := range links {
		if !s.host.Ours(l.Name) || l.Kind != "veth" {
			continue
		}
		master, known := wanted[l.Name]
		switch {
		case !known:
			orphans = append(orphans, removal{host: l.Name})
		case master != 0 && l.Master != master:
			if err := s.host.PutOn(l, master); err != nil {
				return nil, err
			}
		}
	}
	return orphans, nil
}
