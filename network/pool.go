package network

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tarehq/tare/network/ipam"
)

// pool keeps network namespaces ready for the next containers of a lan.
type pool struct {
	spare chan *box     // handed over one by one
	taken chan struct{} // holds a token when one was taken
	stop  context.CancelFunc
	done  chan struct{}
}

const (
	// refillPause is how long after a spare was taken the next is made.
	refillPause = time.Millisecond
	// refillQuiet is how long no other is taken before the next is made while one
	// still waits: a single start has the processors, and the kernel's lists of
	// interfaces, for itself.
	refillQuiet = 50 * time.Millisecond
	// poolsOfUsers is how many lans beside the default bridge have a pool, those
	// that were joined last; each has one namespace that waits.
	poolsOfUsers = 8
)

// pools are those of the lans.
type pools struct {
	fitter *fitter
	naming naming
	spares int // of the default bridge; 0 for no pools at all
	tasks  sync.WaitGroup

	mu     sync.Mutex // guards what follows and the lans' pools; never held during I/O
	open   bool       // from Restore to Close
	recent []*lan     // those with a pool, but for the default bridge; last joined last
}

// begin lets pools be started, and starts that of the default bridge if there is
// one.
func (p *pools) begin(ctx context.Context, bridge *lan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
	if bridge != nil {
		p.startLocked(ctx, bridge, p.spares)
	}
}

// close stops all pools, and starts none any more. They are empty when wait has
// returned.
func (p *pools) close(all []*lan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = false
	for _, l := range all {
		if l.pool != nil {
			l.pool.stop()
		}
	}
}

func (p *pools) wait() { p.tasks.Wait() }

// start is for the default bridge, which was made anew.
func (p *pools) start(ctx context.Context, l *lan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startLocked(ctx, l, p.spares)
}

// startLocked begins to keep spares for the lan, which has none yet. It outlives
// the call and ends with end or close.
func (p *pools) startLocked(ctx context.Context, l *lan, spares int) {
	if spares <= 0 || !p.open || l.pool != nil {
		return
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	// One more waits in the hands of whoever made it.
	of := &pool{spare: make(chan *box, spares-1), taken: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	l.pool = of
	p.tasks.Go(func() { p.refill(ctx, l, of) })
}

// want sees to it that the lan that was just joined has a pool, and that those
// that were not joined for longest have none.
func (p *pools) want(ctx context.Context, l *lan) {
	if p.spares == 0 || l.Name == networkBridge || l.driver() != nil {
		return
	}
	p.mu.Lock()
	var old *lan
	if i := slices.Index(p.recent, l); i < 0 && p.fitter.lans.isUp(l) {
		p.startLocked(ctx, l, 1)
		p.recent = append(p.recent, l)
		if len(p.recent) > poolsOfUsers {
			old = p.recent[0]
			p.recent = slices.Delete(p.recent, 0, 1)
		}
	} else if i >= 0 && i < len(p.recent)-1 {
		p.recent = append(slices.Delete(p.recent, i, i+1), l)
	}
	p.mu.Unlock()
	if old != nil {
		p.end(old, false)
	}
}

// end discards the lan's spares, and waits until they are with the remover if it
// is told to.
func (p *pools) end(l *lan, wait bool) {
	p.mu.Lock()
	of := l.pool
	l.pool = nil
	if i := slices.Index(p.recent, l); i >= 0 {
		p.recent = slices.Delete(p.recent, i, i+1)
	}
	p.mu.Unlock()
	if of == nil {
		return
	}
	of.stop()
	if wait {
		<-of.done
	}
}

// take gives a namespace that waits for the lan, nil if there is none.
func (p *pools) take(l *lan) *box {
	p.mu.Lock()
	of := l.pool
	p.mu.Unlock()
	if of == nil {
		return nil
	}
	select {
	case b := <-of.spare:
		select {
		case of.taken <- struct{}{}:
		default:
		}
		return b
	default:
		return nil
	}
}

// refill keeps the pool filled until ctx ends. Another spare is made only some
// time after one was taken, lest its making slow down the very start that took
// it.
func (p *pools) refill(ctx context.Context, l *lan, of *pool) {
	defer close(of.done)
	defer p.empty(of)
	for {
		b, err := p.makeSpare(ctx, l)
		if err != nil {
			// Attach makes its own then, and reports why it cannot.
			if !pause(ctx, linger) {
				return
			}
			continue
		}
		select {
		case of.spare <- b:
		case <-ctx.Done():
			p.fitter.abandon(b, nil)
			return
		}
		if !pause(ctx, refillPause) || !of.calm(ctx) {
			return
		}
	}
}

// calm waits until none waits any more or none has been taken for some time; false
// when ctx ended first.
func (of *pool) calm(ctx context.Context) bool {
	for len(of.spare) > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-of.taken:
		case <-time.After(refillQuiet):
			return true
		}
	}
	return true
}

// makeSpare makes a namespace that is ready for a container that wants nothing
// special: with addresses and routes, and its pins in the tables.
func (p *pools) makeSpare(ctx context.Context, l *lan) (b *box, err error) {
	f := p.fitter
	if b, err = f.makeBox(l); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.abandon(b, nil)
			b = nil
		}
	}()
	if b.prepared, err = p.naming.prepare(l, b.NS); err != nil {
		return b, err
	}
	if !l.roomy() {
		return b, nil
	}
	sb := &Sandbox{ID: newID()}
	e, err := f.place(l, Want{}, sb)
	if err != nil {
		return b, err
	}
	sb.Endpoints, b.waiting = []Endpoint{e}, sb
	if err = f.plug(ctx, b, l, sb, 0); err != nil {
		return b, err
	}
	err = f.rules.pin(sb)
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

// fitting gives a namespace that waits and has what is wanted, nil if there is
// none.
func (p *pools) fitting(l *lan, w Want) *box {
	switch {
	case l.driver() != nil, w.Interface != "" && w.Interface != "eth0", l.opts.prefix != "" && l.opts.prefix != defaultInterfaceName,
		w.Address.IsValid(), w.Address6.IsValid(), w.MAC != "", len(w.LinkLocal) > 0, len(w.Sysctls) > 0, w.Rate != Rate{},
		w.WithoutIPv6 && l.first(true) != nil:
		return nil
	}
	for {
		b := p.take(l)
		// Somebody may have deleted its interface while it waited.
		if b == nil || b.waiting == nil || p.fitter.host.Has(b.waiting.Endpoints[0].HostInterface) {
			return b
		}
		p.fitter.abandon(b, nil)
	}
}

// occupy gives the place that a namespace has which waited.
func (b *box) occupy(l *lan, w Want, sb *Sandbox) (e Endpoint, err error) {
	e = b.waiting.Endpoints[0]
	e.Links, e.Options, e.GwPriority = maps.Clone(w.Links), maps.Clone(w.Options), w.GwPriority
	e.DNSNames = l.dnsNames(sb, w.Aliases)
	return e, CheckWant(w)
}

// drain gives up the lan's namespaces that wait, for their addresses.
func (p *pools) drain(l *lan) {
	for b := p.take(l); b != nil; b = p.take(l) {
		p.fitter.abandon(b, nil)
	}
}

// empty leaves the spares to the remover.
func (p *pools) empty(of *pool) {
	for {
		select {
		case b := <-of.spare:
			p.fitter.abandon(b, nil)
		default:
			return
		}
	}
}
