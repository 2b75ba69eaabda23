package network

import (
	"context"
	"net/netip"
	"slices"
	"time"
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
	s.naming.drop(b.ID)
	// Even a port that could not be withdrawn leads nowhere from now on.
	var driven []string
	for i := range stored.Endpoints {
		if e := &stored.Endpoints[i]; e.Driver != networkBridge {
			driven = append(driven, e.NetworkID)
		}
		s.remover.doom(s.fitter.removalOf(&stored.Endpoints[i], ns, publishesUDP(stored.Ports)))
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
