package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Where whoever runs the registry asks how it is.
const (
	healthPath = "/healthz" // the process answers
	readyPath  = "/readyz"  // and can serve
)

const (
	readyTime = 5 * time.Second // for the storage to say so
	readyKept = time.Second     // an answer holds, so that strangers cannot keep the storage busy
)

// health tells whether the registry can serve. Why it cannot is for its log.
type health struct {
	ready    func(context.Context) error
	report   func(error)
	stopping atomic.Bool

	mu      sync.Mutex
	current *probe
}

// probe is one question to the storage.
type probe struct {
	done chan struct{}
	at   time.Time // when it was answered
	err  error
}

// handles tells whether the path is one of health's.
func (h *health) handles(path string) bool { return path == healthPath || path == readyPath }

func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.URL.Path == readyPath && (h.stopping.Load() || h.ask(r.Context()) != nil):
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "not ready\n")
	default:
		io.WriteString(w, "ok\n")
	}
}

var errSlow = errors.New("the storage does not answer")

// ask puts the question to the storage, unless it was put just now.
func (h *health) ask(ctx context.Context) error {
	p := h.probe()
	limit := time.NewTimer(readyTime)
	defer limit.Stop()
	select {
	case <-p.done:
		return p.err
	case <-limit.C:
		return errSlow
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probe gives the question that is under way, or was answered just now, or a
// new one: however many ask, the storage is asked once.
func (h *health) probe() *probe {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.current; p != nil {
		select {
		case <-p.done:
			if time.Since(p.at) < readyKept {
				return p
			}
		default:
			return p
		}
	}
	p := &probe{done: make(chan struct{})}
	before := h.current
	h.current = p
	go func() {
		ctx, release := context.WithTimeout(context.Background(), readyTime)
		defer release()
		p.err = h.ready(ctx)
		p.at = time.Now()
		if p.err != nil && (before == nil || before.err == nil) {
			h.report(p.err)
		}
		close(p.done)
	}()
	return p
}
