// Package event keeps what has just happened to containers, images, networks
// and volumes, and hands it to whoever listens.
//
// A Log holds the newest Kept messages in memory, for subscribers that ask for
// the past. Publishing never waits: each subscriber has a queue of its own, and
// one that lets its queue grow beyond MaxQueue is cut off and told so.
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
// subscriber may leave unread.
const (
	Kept     = 256
	MaxQueue = 16384
)

// ErrSlow ends a subscription whose reader fell MaxQueue messages behind.
var ErrSlow = errors.New("the reader of the events is too slow, some were lost")

// Log is a stream of messages with a short memory. The zero value is ready.
type Log struct {
	mu   sync.Mutex
	past []*events.Message // oldest first once unrolled at next
	next int               // where the following message goes when past is full
	subs map[*Subscription]struct{}
	told uint64 // messages since the beginning
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
	if len(l.past) < Kept {
		l.past = append(l.past, msg)
	} else {
		l.past[l.next] = msg
		l.next = (l.next + 1) % Kept
	}
	for s := range l.subs {
		if !s.push(msg) {
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
		for i := range l.past {
			msg := l.past[(l.next+i)%len(l.past)]
			if since.IsZero() || msg.TimeNano >= since.UnixNano() {
				s.push(msg)
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
	queue []*events.Message // shared by all who have yet to read them
	end   error             // what Next returns when the queue is empty
	cut   func()            // called when messages are lost; may be nil
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
func (s *Subscription) push(msg *events.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return false
	}
	if !s.until.IsZero() && msg.TimeNano > s.until.UnixNano() {
		return true
	}
	if !s.filter.Include(*msg) {
		return true
	}
	if len(s.queue) >= MaxQueue {
		s.end = ErrSlow
		if s.cut != nil {
			go s.cut()
		}
	} else {
		s.queue = append(s.queue, msg)
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
	if len(s.queue) == 0 {
		return events.Message{}, false, s.end
	}
	msg := *s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	if len(s.queue) == 0 {
		s.queue = nil
	}
	return msg, true, nil
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
