// Package tasks keeps the goroutines of a service: none is begun once it is closed,
// and its end waits for all.
package tasks

import (
	"context"
	"sync"
)

// Tasks are the goroutines of a service, which waits for them when it is closed.
type Tasks struct {
	closing chan struct{} // closed by Close

	mu      sync.Mutex // between the last task and the wait for all
	running sync.WaitGroup
}

// New begins with none.
func New() *Tasks { return &Tasks{closing: make(chan struct{})} }

// Closing is closed when the tasks are to end.
func (t *Tasks) Closing() <-chan struct{} { return t.closing }

// Go has f done beside everything else. Once the service is closed nothing is
// begun: what is left to do is the next daemon's.
func (t *Tasks) Go(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.Over() {
		t.running.Go(f)
	}
}

// Over tells whether the service is closed.
func (t *Tasks) Over() bool {
	select {
	case <-t.closing:
		return true
	default:
		return false
	}
}

// Close tells all tasks to end.
func (t *Tasks) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.closing)
}

// Wait returns when all have ended.
func (t *Tasks) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { t.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
