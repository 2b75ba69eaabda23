package container

import (
	"context"
	"sync"
)

// tasks are the goroutines of a service, which waits for them when it is closed.
// The zero value is ready; closing is nil in one that is never closed.
type tasks struct {
	closing chan struct{} // closed by close

	mu      sync.Mutex // between the last task and the wait for all
	closed  bool
	running sync.WaitGroup
}

// Go has f done beside everything else. Once the service is closed nothing is
// begun: what is left to do is the next daemon's.
func (t *tasks) Go(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.running.Go(f)
	}
}

// over tells whether the service is closed.
func (t *tasks) over() bool {
	select {
	case <-t.closing:
		return true
	default:
		return false
	}
}

// close tells all tasks to end.
func (t *tasks) close() {
	close(t.closing)
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
}

// wait returns when all have ended.
func (t *tasks) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { t.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
