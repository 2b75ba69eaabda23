package network

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tarehq/tare/network/ipam"
)

// pool keeps network namespaces ready for the next containers of a lan.
type pool struct {
	spare chan *box // handed over one by one
	stop  context.CancelFunc
	done  chan struct{}
}

const (
	// refillPause is how long after a spare was taken the next is made.
	refillPause = time.Millisecond
	// poolsOfUsers is how many lans beside the default bridge have a pool, those
	// that were joined last; each has one namespace that waits.
	poolsOfUsers = 8
)

// startPoolLocked begins to keep spares for the lan, which has none yet. It
// outlives the call and ends with endPool or Close.
func (s *Service) startPoolLocked(ctx context.Context, l *lan, spares int) {
	if spares <= 0 || s.closed || !s.restored || l.pool != nil {
		return
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	// One more waits in the hands of whoever made it.
	l.pool = &pool{spare: make(chan *box, spares-1), stop: stop, done: make(chan struct{})}
	s.tasks.Add(1)
	go s.refill(ctx, l, l.pool)
}

// wantPool sees to it that the lan that was just joined has a pool, and that
// those that were not joined for longest have none.
func (s *Service) wantPool(ctx context.Context, l *lan) {
	if s.spares == 0 || l.Name == networkBridge || l.driver() != nil {
		return
	}
	s.mu.Lock()
	var old *lan
	if i := slices.Index(s.recent, l); i < 0 && s.lans.isUp(l) {
		s.startPoolLocked(ctx, l, 1)
		s.recent = append(s.recent, l)
		if len(s.recent) > poolsOfUsers {
			old = s.recent[0]
			s.recent = slices.Delete(s.recent, 0, 1)
		}
	} else if i >= 0 && i < len(s.recent)-1 {
		s.recent = append(slices.Delete(s.recent, i, i+1), l)
	}
	s.mu.Unlock()
	if old != nil {
		s.endPool(old, false)
	}
}

// endPool discards the lan's spares, and waits until they are with the remover
// if it is told to.
func (s *Service) endPool(l *lan, wait bool) {
	s.mu.Lock()
	p := l.pool
	l.pool = nil
	if i := slices.Index(s.recent, l); i >= 0 {
		s.recent = slices.Delete(s.recent, i, i+1)
	}
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.stop()
	if wait {
		<-p.done
	}
}

// takeSpare gives a namespace that waits for the lan, nil if there is none.
func (s *Service) takeSpare(l *lan) *box {
	s.mu.Lock()
	p := l.pool
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case b := <-p.spare:
		return b
	default:
		return nil
	}
}

// refill keeps the pool filled until ctx ends. Another spare is made only some
// time after one was taken, lest its making slow down the very start that took
// it.
func (s *Service) refill(ctx context.Context, l *lan, p *pool) {
	defer s.tasks.Done()
	defer close(p.done)
	defer s.emptyPool(p)
	for {
		b, err := s.makeSpare(ctx, l)
		if err != nil {
			// Attach makes its own then, and reports why it cannot.
			if !pause(ctx, linger) {
				return
			}
			continue
		}
		select {
		case p.spare <- b:
		case <-ctx.Done():
			s.abandon(b, nil)
			return
		}
		if !pause(ctx, refillPause) {
			return
		}
	}
}

// makeSpare makes a namespace that is ready for a container that wants nothing
// special: with addresses and routes, and its pins in the tables.
func (s *Service) makeSpare(ctx context.Context, l *lan) (b *box, err error) {
	if b, err = s.makeBox(l); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.abandon(b, nil)
			b = nil
		}
	}()
	if s.names != nil && !predefined(l.Name) {
		if b.prepared, err = s.names.Prepare(b.NS); err != nil {
			return b, err
		}
	}
	if !l.roomy() {
		return b, nil
	}
	sb := &Sandbox{ID: newID()}
	e, err := s.place(l, Want{}, sb)
	if err != nil {
		return b, err
	}
	sb.Endpoints, b.waiting = []Endpoint{e}, sb
	if err = s.plug(ctx, b, l, sb, 0); err != nil {
		return b, err
	}
	err = s.rules.pin(sb)
	return b, err
}

// roomy tells whether the lan has addresses to spare.
func (l *lan) roomy() bool {
	for _, n := range l.subnets() {
		if s, ok := n.source.(*ipam.Subnet); ok {
			if _, free := s.Usage(); free < 32 {
				return false
			}
		}
	}
	return true
}

// spareFor gives a namespace that waits and has what is wanted, nil if there is
// none.
func (s *Service) spareFor(l *lan, w Want) *box {
	switch {
	case l.driver() != nil, w.Interface != "" && w.Interface != "eth0", l.opts.prefix != "" && l.opts.prefix != defaultInterfaceName,
		w.Address.IsValid(), w.Address6.IsValid(), w.MAC != "", len(w.LinkLocal) > 0, len(w.Sysctls) > 0, w.Rate != Rate{},
		w.WithoutIPv6 && l.first(true) != nil:
		return nil
	}
	for {
		b := s.takeSpare(l)
		// Somebody may have deleted its interface while it waited.
		if b == nil || b.waiting == nil || s.host.Has(b.waiting.Endpoints[0].HostInterface) {
			return b
		}
		s.abandon(b, nil)
	}
}

// occupy gives the place that a namespace has which waited.
func (s *Service) occupy(b *box, l *lan, w Want, sb *Sandbox) (e Endpoint, err error) {
	e = b.waiting.Endpoints[0]
	e.Links, e.Options, e.GwPriority = maps.Clone(w.Links), maps.Clone(w.Options), w.GwPriority
	e.DNSNames = l.dnsNames(sb, w.Aliases)
	return e, CheckWant(w)
}

// drain gives up the lan's namespaces that wait, for their addresses.
func (s *Service) drain(l *lan) {
	for b := s.takeSpare(l); b != nil; b = s.takeSpare(l) {
		s.abandon(b, nil)
	}
}

// emptyPool leaves the spares to the remover.
func (s *Service) emptyPool(p *pool) {
	for {
		select {
		case b := <-p.spare:
			s.abandon(b, nil)
		default:
			return
		}
	}
}
