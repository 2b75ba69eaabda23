package build

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tarehq/tare/build/keep"
)

// collector holds the cache under its ceilings after builds.
type collector struct {
	rules []keep.Rule
	prune func(context.Context, PruneOptions) error
	busy  func() bool // with a build

	mu      sync.Mutex
	due     bool // once more
	running bool
	closed  bool
	cancel  context.CancelFunc
	done    sync.WaitGroup
	failed  func(error)
}

// collectAfter is how long the cache is left alone after a build: another may be
// about to begin.
const collectAfter = time.Second

// collectLate is for how long builds that go on keep it from being looked at.
const collectLate = 30 * time.Second

// want has the cache be looked at soon.
func (c *collector) want() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.rules) == 0 {
		return
	}
	if c.due = true; c.running {
		return
	}
	c.running = true
	ctx, cancel := context.WithCancel(context.Background()) // of no build any more
	c.cancel = cancel
	c.done.Go(func() {
		defer cancel()
		c.run(ctx)
	})
}

func (c *collector) run(ctx context.Context) {
	for waited := time.Duration(0); ; {
		select {
		case <-time.After(collectAfter):
		case <-ctx.Done():
		}
		if waited += collectAfter; ctx.Err() == nil && waited < collectLate && c.busy() {
			continue
		}
		waited = 0
		c.mu.Lock()
		if !c.due || ctx.Err() != nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		c.due = false
		c.mu.Unlock()
		if err := c.collect(ctx); err != nil && ctx.Err() == nil {
			c.failed(fmt.Errorf("it cannot be held under its ceilings: %w", err))
		}
	}
}

// collect applies the rules, one after the other.
func (c *collector) collect(ctx context.Context) (err error) {
	for _, r := range c.rules {
		err = errors.Join(err, c.prune(ctx, PruneOptions{Rule: r}))
	}
	return err
}

// close ends what is under way.
func (c *collector) close() {
	c.mu.Lock()
	c.closed = true
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	c.done.Wait()
}
