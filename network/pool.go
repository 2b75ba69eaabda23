package network

import (
	"context"
	"slices"
	"time"
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
	if s.spares == 0 || l.Name == networkBridge || l.driver != nil {
		return
	}
	s.mu.Lock()
	var old *lan
	if i := slices.Index(s.recent, l); i < 0 && l.state == lanUp {
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
		b, err := s.makeSpare(l)
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

func (s *Service) makeSpare(l *lan) (*box, error) {
	b, err := s.makeBox(l)
	if err != nil || s.names == nil || predefined(l.Name) {
		return b, err
	}
	if b.prepared, err = s.names.Prepare(b.ns); err != nil {
		s.abandon(b, nil)
		return nil, err
	}
	return b, nil
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
