// Package notify tells others what happened to a registry's repositories: by
// webhooks, in the form of Docker's registry.
//
// Each endpoint has a queue of its own, in memory, and gets its events one after
// the other, in their order, at least once: the next is sent when the one before
// was taken (any 2xx). What a receiver does not take is sent again with growing
// pauses, for a day, so the queue is what bounds an outage: it holds 10,000
// events, of which pulls may be half. More are dropped, and counted. What waits
// is lost at the end of the process, after some time to deliver it: a receiver
// that must not miss anything compares with the registry now and then.
package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/registry"
)

// Endpoint is a receiver.
type Endpoint struct {
	URL     string
	Headers func() (http.Header, error) // asked for each time, as secrets change; nil: none
	Actions []registry.Action
	Match   func(repo string) bool // nil: all repositories
	Timeout time.Duration          // of one attempt
}

// Config is whom to tell, and how the registry is called.
type Config struct {
	Endpoints []Endpoint
	URL       string // where clients see the registry; "" leaves it to their requests
	Addr      string // of this process, for the receivers of many registries
	Log       *slog.Logger
}

const (
	maxQueue   = 10_000
	maxAge     = 24 * time.Hour
	firstPause = 500 * time.Millisecond
	lastPause  = time.Minute
	maxText    = 256 // of what a client calls itself and the registry
)

// Sender delivers events.
type Sender struct {
	config Config
	queues []*Queue
	client *http.Client
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// New begins to deliver.
func New(c Config) *Sender {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1
	s := &Sender{config: c, client: &http.Client{
		Transport: transport,
		// A receiver that moved is configured anew: what is told here is not for
		// whoever an answer names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, e := range c.Endpoints {
		q := &Queue{Endpoint: e, wake: make(chan struct{}, 1), most: maxQueue, pause: firstPause}
		if u, err := url.Parse(e.URL); err == nil {
			q.host = u.Host
		}
		s.queues = append(s.queues, q)
		s.done.Go(func() { s.run(q) })
	}
	return s
}

// Queues are those of the endpoints, in their order.
func (s *Sender) Queues() []*Queue { return s.queues }

// Observe is registry.Config's. It does not wait.
func (s *Sender) Observe(e registry.Event) {
	e.UserAgent, e.Host = short(e.UserAgent), short(e.Host)
	id := ""
	for _, q := range s.queues {
		if !slices.Contains(q.Actions, e.Action) || q.Match != nil && !q.Match(e.Repository) {
			continue
		}
		if id == "" {
			id = idgen.New()
		}
		q.put(&waiting{e, id})
	}
}

func short(s string) string { return strings.Clone(s[:min(len(s), maxText)]) }

// Close delivers what waits until ctx ends. Nothing may be observed any more.
func (s *Sender) Close(ctx context.Context) {
	defer context.AfterFunc(ctx, s.cancel)()
	for _, q := range s.queues {
		q.close()
	}
	s.done.Wait()
	s.cancel()
	for _, q := range s.queues {
		if n := q.Waiting(); n > 0 {
			s.config.Log.Warn("events were not delivered before the end", slog.String("receiver", q.host), slog.Int("events", n))
		}
	}
}

type waiting struct {
	registry.Event
	id string
}

// Queue is what waits for one endpoint.
type Queue struct {
	Endpoint
	host  string
	most  int
	pause time.Duration // the first one

	mu     sync.Mutex
	events []*waiting
	closed bool
	wake   chan struct{}

	delivered, failed, dropped atomic.Int64
}

// Host is the receiver, for people.
func (q *Queue) Host() string { return q.host }

// Waiting is how many events wait.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.events)
}

// Counts are events delivered and dropped, and attempts that failed.
func (q *Queue) Counts() (delivered, failed, dropped int64) {
	return q.delivered.Load(), q.failed.Load(), q.dropped.Load()
}

func (q *Queue) put(w *waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	most := q.most
	if w.Action == registry.Pull {
		most /= 2 // pulls are many, and never keep a push from being told
	}
	if len(q.events) >= most || q.closed {
		q.dropped.Add(1)
		return
	}
	q.events = append(q.events, w)
	q.signal()
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// first is the event to send next.
func (q *Queue) first() (w *waiting, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) == 0 {
		return nil, q.closed
	}
	return q.events[0], q.closed
}

func (q *Queue) shift() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.events[0] = nil
	if q.events = q.events[1:]; len(q.events) == 0 {
		q.events = nil // what an outage needed is not kept
	}
}

func (s *Sender) run(q *Queue) {
	for {
		w, closed := q.first()
		switch {
		case w != nil:
			if !s.deliver(q, w) {
				return
			}
			q.shift()
		case closed:
			return
		default:
			select {
			case <-q.wake:
			case <-s.ctx.Done():
				return
			}
		}
	}
}

// errRefused is an answer that another attempt would not change.
var errRefused = errors.New("the receiver refuses the event")

// deliver sends an event until it is taken or given up. It is false when the
// sender ends before that.
func (s *Sender) deliver(q *Queue, w *waiting) bool {
	log := s.config.Log.With(slog.String("receiver", q.host), slog.String("event", w.id))
	pause, failing := q.pause, false
	for {
		err := s.attempt(q, w)
		if err == nil {
			q.delivered.Add(1)
			if failing {
				log.Info("events are delivered again", slog.Int("waiting", q.Waiting()-1))
			}
			return true
		}
		if s.ctx.Err() != nil {
			return false
		}
		q.failed.Add(1)
		if errors.Is(err, errRefused) || time.Since(w.Time) > maxAge {
			q.dropped.Add(1)
			log.Error("an event is dropped", slog.Any("error", err))
			return true
		}
		if !failing {
			log.Warn("an event cannot be delivered, and is tried again", slog.Any("error", err))
			failing = true
		}
		// Receivers of many registries are not asked by all of them at once.
		next := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-next.C:
		case <-s.ctx.Done():
			next.Stop()
			return false
		}
		pause = min(2*pause, lastPause)
	}
}

// attempt sends an event once. Its errors do not tell the address, in which
// there may be a secret.
func (s *Sender) attempt(q *Queue, w *waiting) error {
	ctx, release := context.WithTimeout(s.ctx, q.Timeout)
	defer release()
	base := s.config.URL
	if base == "" && w.Host != "" {
		base = "http://" + w.Host
		if w.TLS {
			base = "https://" + w.Host
		}
	}
	body, err := json.Marshal(envelope{[]*event{describe(&w.Event, w.id, base, s.config.Addr)}})
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, q.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the receiver's URL cannot be used")
	}
	if q.Headers != nil {
		if r.Header, err = q.Headers(); err != nil {
			return err
		}
	}
	r.Header.Set("Content-Type", MediaType)
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", "tare-registry")
	}
	resp, err := s.client.Do(r)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	resp.Body.Close()
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case refusal(resp.StatusCode):
		return fmt.Errorf("%w: it answers %d", errRefused, resp.StatusCode)
	}
	return fmt.Errorf("it answers %d", resp.StatusCode)
}
