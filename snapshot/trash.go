package snapshot

import (
	"os"
	"path/filepath"
	"sync"
)

// trash deletes directories one after the other, in one goroutine, so that
// removing much takes no more than one thread from the containers.
type trash struct {
	dir    string
	remove func(path string) error
	done   chan struct{}

	mu     sync.Mutex
	wake   *sync.Cond
	queue  []string
	closed bool
}

func newTrash(dir string, remove func(path string) error) *trash {
	t := &trash{dir: dir, remove: remove, done: make(chan struct{})}
	t.wake = sync.NewCond(&t.mu)
	go t.run()
	return t
}

// resume queues what an earlier process left.
func (t *trash) resume() error {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		t.add(filepath.Join(t.dir, e.Name()))
	}
	return nil
}

func (t *trash) add(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, path)
	t.wake.Signal()
}

func (t *trash) run() {
	defer close(t.done)
	for {
		t.mu.Lock()
		for len(t.queue) == 0 && !t.closed {
			t.wake.Wait()
		}
		if t.closed {
			t.mu.Unlock()
			return
		}
		path := t.queue[0]
		t.queue = t.queue[1:]
		t.mu.Unlock()
		// What cannot be deleted now is tried again by the next Open.
		_ = t.remove(path)
	}
}

func (t *trash) close() {
	t.mu.Lock()
	t.closed = true
	t.wake.Signal()
	t.mu.Unlock()
	<-t.done
}
