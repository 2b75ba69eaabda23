package build

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/tarehq/tare/internal/idgen"
)

// places are places on the network that wait for a step: one takes longer to make,
// and much longer to take away, than a step that does nothing. Steps without
// privileges change nothing of a place, and no process of theirs is left in it, so
// another can have it. BuildKit keeps its network namespaces so, too.
type places struct {
	store Store
	bound int // of those that wait

	mu   sync.Mutex
	idle []*standing
	drop *time.Timer
}

// standing is a place with its namespace.
type standing struct {
	Place
	id    string
	netNS *os.File
}

// placeIdle is how long a place waits for the next step.
const placeIdle = 2 * time.Second

func newPlaces(store Store) *places { return &places{store: store, bound: 2 * runtime.NumCPU()} }

// take gives a place that nobody has. Those that wait are on the default bridge.
func (p *places) take(ctx context.Context, network string) (*standing, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 && network == "" {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	s := &standing{id: "build-" + idgen.New()[:32]}
	var err error
	if s.Place, err = p.store.Attach(ctx, s.id, network); err != nil {
		return nil, err
	}
	if s.netNS, err = os.Open(s.NetNS); err != nil {
		return nil, errors.Join(err, p.store.Detach(context.WithoutCancel(ctx), s.id))
	}
	return s, nil
}

// give takes a place back. One that a step may have changed is not used again.
func (p *places) give(ctx context.Context, s *standing, changed bool) error {
	p.mu.Lock()
	if changed || len(p.idle) >= p.bound {
		p.mu.Unlock()
		return p.end(ctx, s)
	}
	defer p.mu.Unlock()
	p.idle = append(p.idle, s)
	if p.drop != nil {
		p.drop.Stop()
	}
	p.drop = time.AfterFunc(placeIdle, p.clear)
	return nil
}

func (p *places) end(ctx context.Context, s *standing) error {
	return errors.Join(s.netNS.Close(), p.store.Detach(context.WithoutCancel(ctx), s.id))
}

// clear ends those that wait.
func (p *places) clear() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, s := range idle {
		_ = p.end(context.Background(), s) // what stays goes with the process: the daemon lent it
	}
}
