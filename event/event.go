// Package event keeps what has just happened to containers, images, networks
// and volumes, and hands it to whoever listens.
//
// A Log holds the newest Kept messages in memory, for subscribers that ask for
// the past. Publishing never waits: each subscriber has a queue of its own, and
// one that lets its queue grow beyond MaxQueue is cut off and told so. Command
// lines and labels may be an image's, megabytes of them: both are bounded in bytes
// too.
package event

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// Kept is how many past messages a Log holds, and MaxQueue how many a
// subscriber may leave unread. MaxBytes bounds what either may weigh; the newest
// message is always there.
const (
	Kept     = 256
	MaxQueue = 16384
	MaxBytes = 32 << 20
)

// ErrSlow ends a subscription whose reader fell MaxQueue messages behind.
var ErrSlow = errors.New("the reader of the events is too slow, some were lost")

// Log is a stream of messages with a short memory. The zero value is ready.
type Log struct {
	mu   sync.Mutex
	past backlog
	subs map[*Subscription]struct{}
	told uint64 // messages since the beginning
}

// backlog is messages, the oldest first.
type backlog struct {
	list  []weighed
	bytes int
}

// weighed is a message, shared by all who have yet to read it.
type weighed struct {
	*events.Message
	bytes int
}

// weigh gives a message with what it takes, about.
func weigh(msg *events.Message) weighed {
	n := len(msg.Action)
	for k, v := range msg.Actor.Attributes {
		n += len(k) + len(v) + 64
	}
	return weighed{msg, n}
}

func (b *backlog) push(m weighed) {
	b.list = append(b.list, m)
	b.bytes += m.bytes
}

func (b *backlog) pop() (m events.Message) {
	m = *b.list[0].Message
	b.bytes -= b.list[0].bytes
	b.list[0] = weighed{}
	if b.list = b.list[1:]; len(b.list) == 0 {
		b.list = nil
	}
	return m
}

// Publish stamps a message with the time and gives it to all subscribers that
// want it. It takes microseconds and never blocks on a reader. The actor's
// attributes belong to the log from then on and must not be changed.
func (l *Log) Publish(typ events.Type, action events.Action, actor events.Actor) {
	if actor.Attributes == nil {
		actor.Attributes = map[string]string{}
	}
	msg := &events.Message{Type: typ, Action: action, Actor: actor, Scope: "local"}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Stamped under the lock, so that the order in time is the order told.
	now := time.Now()
	msg.Time, msg.TimeNano = now.Unix(), now.UnixNano()
	l.told++
	m := weigh(msg)
	l.past.push(m)
	for len(l.past.list) > Kept || l.past.bytes > MaxBytes && len(l.past.list) > 1 {
		l.past.pop()
	}
	for s := range l.subs {
		if !s.push(m) {
			delete(l.subs, s)
		}
	}
}

// Subscribe returns the messages that f includes: those of the past between
// since and until that are still held, then those to come. With both times
// zero there is no past; with until in the past there is nothing to come. The
// caller reads with Next and calls Close at the end.
func (l *Log) Subscribe(since, until time.Time, f Filter) *Subscription {
	s := &Subscription{log: l, filter: f, until: until, wake: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !since.IsZero() || !until.IsZero() {
		for _, m := range l.past.list {
			if since.IsZero() || m.TimeNano >= since.UnixNano() {
				s.push(m)
			}
		}
	}
	if !until.IsZero() && !until.After(time.Now()) {
		s.end = io.EOF
		return s
	}
	if l.subs == nil {
		l.subs = map[*Subscription]struct{}{}
	}
	l.subs[s] = struct{}{}
	return s
}

// Subscribers tells how many subscriptions are open.
func (l *Log) Subscribers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.subs)
}

// Published tells how many messages there have been.
func (l *Log) Published() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}

// Subscription is one reader's queue of messages.
type Subscription struct {
	log    *Log
	filter Filter
	until  time.Time
	wake   chan struct{} // holds a token when the queue may have something new

	mu    sync.Mutex
	queue backlog
	end   error  // what Next returns when the queue is empty
	cut   func() // called when messages are lost; may be nil
}

// OnSlow has f called, not waited for, once the reader has fallen too far
// behind: it may be held up by what only f can end.
func (s *Subscription) OnSlow(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut = f; s.end == ErrSlow {
		go f()
	}
}

// push appends a message that is wanted and tells whether the subscription
// still lives.
func (s *Subscription) push(m weighed) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return false
	}
	if !s.until.IsZero() && m.TimeNano > s.until.UnixNano() {
		return true
	}
	if !s.filter.Include(*m.Message) {
		return true
	}
	if n := len(s.queue.list); n >= MaxQueue || n > 0 && s.queue.bytes+m.bytes > MaxBytes {
		s.end = ErrSlow
		if s.cut != nil {
			go s.cut()
		}
	} else {
		s.queue.push(m)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.end == nil
}

// Next waits for the next message. It returns io.EOF when the time until is
// reached, ErrSlow when messages were lost, and ctx's error when ctx ends.
// It is called from one goroutine.
func (s *Subscription) Next(ctx context.Context) (events.Message, error) {
	var expired <-chan time.Time
	for {
		if msg, ok, err := s.pop(); ok || err != nil {
			return msg, err
		}
		if expired == nil && !s.until.IsZero() {
			timer := time.NewTimer(time.Until(s.until))
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-s.wake:
		case <-expired:
			s.finish(io.EOF)
		case <-ctx.Done():
			return events.Message{}, ctx.Err()
		}
	}
}

func (s *Subscription) pop() (events.Message, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue.list) == 0 {
		return events.Message{}, false, s.end
	}
	return s.queue.pop(), true, nil
}

// finish lets nothing more in; what is queued can still be read.
func (s *Subscription) finish(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == nil {
		s.end = reason
	}
}

// Close ends the subscription. Messages that were not read are dropped.
func (s *Subscription) Close() {
	s.finish(io.EOF)
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	delete(s.log.subs, s)
}
