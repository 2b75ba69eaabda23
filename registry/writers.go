package registry

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// writers are the requests that have an upload open. A client whose connection
// broke comes back before the registry knows that it did: its new request ends
// the old one, which keeps what came, and waits for that. Who only asks how far
// the upload is ends nothing.
type writers struct {
	mu   sync.Mutex
	open map[string]*writer
}

type writer struct {
	control *http.ResponseController // nil if nothing is read from the client
	stopped atomic.Bool
	size    atomic.Int64 // of the upload with what is on its way to it; -1 until it is open
	done    chan struct{}
}

// patience is how long a new request waits for the end of the old one, and
// insist how often it tells it meanwhile.
const (
	patience = 10 * time.Second
	insist   = 50 * time.Millisecond
)

var errStopped = errors.New("another request goes on with this upload")

// stop ends the reading of what comes in. A reader that moves its own deadline
// along at this moment is met by the next call. Where the connection has no
// deadlines, it ends with the next byte, or by itself.
func (w *writer) stop() {
	w.stopped.Store(true)
	if w.control != nil {
		_ = w.control.SetReadDeadline(time.Unix(1, 0))
	}
}

// enter makes q the only request that has its upload open, until leave. met is
// told of each that has it already, while that is listed: later its connection
// may serve something else. If that is enough, the writer is nil.
func (w *writers) enter(q *request, met func(old *writer) (enough bool)) (*writer, error) {
	key := q.repo + "/" + q.item
	mine := &writer{done: make(chan struct{})}
	mine.size.Store(-1)
	if q.Method == http.MethodPatch || q.Method == http.MethodPut {
		mine.control = http.NewResponseController(q.w)
	}
	timeout, again := time.NewTimer(patience), time.NewTicker(insist)
	defer timeout.Stop()
	defer again.Stop()
	for {
		w.mu.Lock()
		old := w.open[key]
		if old == nil {
			if w.open == nil {
				w.open = make(map[string]*writer)
			}
			w.open[key] = mine
			w.mu.Unlock()
			return mine, nil
		}
		enough := met(old)
		w.mu.Unlock()
		if enough {
			return nil, nil
		}
		select {
		case <-old.done:
		case <-again.C:
		case <-timeout.C:
			return nil, busy()
		case <-q.Context().Done():
			return nil, q.Context().Err()
		}
	}
}

func (w *writers) leave(q *request, mine *writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, q.repo+"/"+q.item)
	close(mine.done)
}
