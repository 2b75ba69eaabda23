package network

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/tarehq/tare/network/firewall"
	"github.com/tarehq/tare/network/shape"
)

// Detach withdraws a sandbox's ports and returns; its interfaces are deleted in
// the background, and the addresses may be taken again when that is done. All
// goes that is known of the sandbox, whether the caller's copy lists it or not.
// The sockets are the caller's to close. Of one that is not known nothing is
// left, Restore saw to that, and Detach does nothing. Detach is carried out even
// when ctx has ended.
func (s *Service) Detach(ctx context.Context, b Sandbox) error {
	unlock, err := s.working.Lock(context.WithoutCancel(ctx), b.ID)
	if err != nil {
		return err
	}
	defer unlock()
	stored, ns, known := s.sandboxes.part(b.ID)
	if !known {
		return nil
	}
	err = s.rules.withdraw(stored)
	if s.names != nil {
		s.names.Drop(b.ID)
	}
	// Even a port that could not be withdrawn leads nowhere from now on.
	var driven []string
	for i := range stored.Endpoints {
		if e := &stored.Endpoints[i]; e.Driver != networkBridge {
			driven = append(driven, e.NetworkID)
		}
		s.remover.doom(s.removalOf(&stored.Endpoints[i], ns, publishesUDP(stored.Ports)))
		ns = nil // closed once
	}
	if ns != nil {
		s.remover.doom(removal{ns: ns})
	}
	for _, id := range driven { // nobody would tell the driver after a crash
		s.remover.settle(id)
	}
	return err
}

// removalOf is how an endpoint's interface is removed; udp tells that flows to
// it may live on in conntrack.
func (s *Service) removalOf(e *Endpoint, ns *os.File, udp bool) removal {
	l, host := s.lans.get(e.NetworkID), e.HostInterface
	if l != nil && l.driver() != nil {
		host = "" // the driver's own affair
	}
	return removal{host: host, ns: ns, network: l.asks(), after: func() {
		for _, p := range []netip.Prefix{e.Address, e.Address6} {
			if udp && p.IsValid() {
				firewall.ForgetFlowsTo(p.Addr())
			}
		}
		s.giveUp(l, e)
	}}
}

// giveUp takes back what an endpoint has beside its interface.
func (s *Service) giveUp(l *lan, e *Endpoint) {
	if l == nil {
		return
	}
	if e.Rate != (Rate{}) && e.HostInterface != "" {
		if err := shape.Clear(e.HostInterface); err != nil {
			slog.Warn("what held an interface to its rate is left", "interface", e.HostInterface, "err", err)
		}
	}
	if d := l.driver(); d != nil {
		ctx, cancel := context.WithTimeout(context.Background(), linger)
		defer cancel()
		if e.Exposed {
			s.lans.conceal(ctx, e)
		}
		if err := d.Leave(ctx, l.Network, *e); err != nil {
			slog.Warn("the driver of a network could not take an endpoint back", "network", l.Name, "driver", l.Driver, "endpoint", e.ID, "err", err)
		}
	}
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			l.release(p)
		}
	}
}

// unused are the first addresses of each family that only wait for a
// container: there the lan goes on.
func (s *Service) unused(l *lan) (out []netip.Addr) {
	for _, b := range s.sandboxes.unused() {
		if e := b.On(l.ID); e != nil {
			return []netip.Addr{e.Address.Addr(), e.Address6.Addr()}
		}
	}
	return nil
}

// saveCursors stores where the addresses go on, of the lans where some were
// taken. It is not done by those who take them, who are in a hurry.
func (s *Service) saveCursors() {
	for _, l := range s.lans.moved() {
		s.store.putCursors(l.ID, append(s.unused(l), l.cursors()...))
	}
}

// pause waits for d, and tells whether it did, rather than ctx ending first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func publishesUDP(ports []Published) bool {
	return slices.ContainsFunc(ports, func(p Published) bool { return p.Proto == "udp" })
}
