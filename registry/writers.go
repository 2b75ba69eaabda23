package registry

import (
	"net/http"
	"sync"
	"time"
)

// writers are the requests that have an upload open. A client whose connection
// broke comes back before the registry knows that it did: its new request ends
// the old one, which keeps what came, and waits for that.
type writers struct {
	mu   sync.Mutex
	open map[string]*writer
}

type writer struct {
	stop func()
	done chan struct{}
}

// patience is how long a new request waits for the end of the old one.
const patience = 10 * time.Second

// enter makes q the only request that has its upload open, until leave.
func (w *writers) enter(q *request) (leave func(), err error) {
	key := q.repo + "/" + q.item
	control := http.NewResponseController(q.w)
	mine := &writer{
		// Where the connection has no deadlines, the old request ends by itself.
		stop: func() { _ = control.SetReadDeadline(time.Unix(1, 0)) },
		done: make(chan struct{}),
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		old := w.open[key]
		if old == nil {
			if w.open == nil {
				w.open = make(map[string]*writer)
			}
			w.open[key] = mine
			w.mu.Unlock()
			return func() { w.leave(key, mine) }, nil
		}
		old.stop() // while it is listed: later its connection may serve something else
		w.mu.Unlock()
		select {
		case <-old.done:
		case <-timeout.C:
			return nil, busy()
		case <-q.Context().Done():
			return nil, q.Context().Err()
		}
	}
}

func (w *writers) leave(key string, mine *writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, key)
	close(mine.done)
}
