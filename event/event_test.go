package event

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

func publish(l *Log, n int) {
	for i := range n {
		l.Publish(events.ContainerEventType, events.ActionStart, events.Actor{ID: strconv.Itoa(i)})
	}
}

// drain reads what is there until the end of the subscription.
func drain(t *testing.T, s *Subscription) []events.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var out []events.Message
	for {
		msg, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, msg)
	}
}

func TestPublishStamps(t *testing.T) {
	var l Log
	s := l.Subscribe(time.Time{}, time.Time{}, nil)
	defer s.Close()
	before := time.Now()
	l.Publish(events.ImageEventType, events.ActionTag, events.Actor{ID: "sha256:1", Attributes: map[string]string{"name": "a:b"}})
	msg, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if msg.Scope != "local" || msg.Type != events.ImageEventType || msg.Action != events.ActionTag || msg.Actor.ID != "sha256:1" {
		t.Errorf("got %+v", msg)
	}
	if at := time.Unix(0, msg.TimeNano); at.Before(before) || at.After(time.Now()) || msg.Time != at.Unix() {
		t.Errorf("time %d and %d, published at %v", msg.Time, msg.TimeNano, before)
	}
}

func TestRingKeepsTheNewest(t *testing.T) {
	var l Log
	publish(&l, Kept+10)
	got := drain(t, l.Subscribe(time.Unix(1, 0), time.Now(), nil))
	if len(got) != Kept {
		t.Fatalf("%d messages are kept, want %d", len(got), Kept)
	}
	for i, msg := range got {
		if msg.Actor.ID != strconv.Itoa(i+10) {
			t.Fatalf("message %d is %s", i, msg.Actor.ID)
		}
	}
}

func TestSinceAndUntil(t *testing.T) {
	var l Log
	publish(&l, 1)
	middle := time.Now()
	publish(&l, 2)
	end := time.Now()
	for _, test := range []struct {
		since, until time.Time
		want         int
	}{
		{time.Time{}, middle, 1},
		{middle, end, 2},
		{time.Unix(1, 0), end, 3},
		{end, end.Add(time.Nanosecond), 0},
	} {
		if got := drain(t, l.Subscribe(test.since, test.until, nil)); len(got) != test.want {
			t.Errorf("from %v to %v: %d messages, want %d", test.since, test.until, len(got), test.want)
		}
	}
}

func TestUntilInTheFutureEnds(t *testing.T) {
	var l Log
	s := l.Subscribe(time.Time{}, time.Now().Add(time.Second), nil) // time enough on a busy machine
	publish(&l, 3)
	if got := drain(t, s); len(got) != 3 {
		t.Errorf("%d messages, want 3", len(got))
	}
	s.Close()
	if n := l.Subscribers(); n != 0 {
		t.Errorf("%d subscribers are left", n)
	}
}

func TestNextEndsWithContext(t *testing.T) {
	var l Log
	s := l.Subscribe(time.Time{}, time.Time{}, nil)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSlowReaderIsCutOff(t *testing.T) {
	var l Log
	slow := l.Subscribe(time.Time{}, time.Time{}, nil)
	defer slow.Close()
	cut := make(chan struct{}, 2)
	slow.OnSlow(func() { cut <- struct{}{} })
	publish(&l, MaxQueue+5)
	<-cut // whoever waits for the reader can end that
	slow.OnSlow(func() { cut <- struct{}{} })
	<-cut // also late
	if n := l.Subscribers(); n != 0 {
		t.Errorf("%d subscribers are left", n)
	}
	for range MaxQueue {
		if _, err := slow.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("got %v, want %v", err, ErrSlow)
	}
}

func TestManyReadersSeeAllInOrder(t *testing.T) {
	var l Log
	const readers, writers, each = 4, 4, 500
	errs := make(chan error, readers)
	for range readers {
		s := l.Subscribe(time.Time{}, time.Time{}, nil)
		go func() {
			defer s.Close()
			var last int64
			for range writers * each {
				msg, err := s.Next(t.Context())
				if err != nil || msg.TimeNano < last {
					errs <- fmt.Errorf("after %d came %d, error %v", last, msg.TimeNano, err)
					return
				}
				last = msg.TimeNano
			}
			errs <- nil
		}()
	}
	for range writers {
		go publish(&l, each)
	}
	for range readers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestFilter(t *testing.T) {
	message := func(typ events.Type, action, id string, attrs ...string) events.Message {
		m := map[string]string{}
		for i := 0; i < len(attrs); i += 2 {
			m[attrs[i]] = attrs[i+1]
		}
		return events.Message{Type: typ, Action: events.Action(action), Scope: "local", Actor: events.Actor{ID: id, Attributes: m}}
	}
	web := message("container", "start", "abcdef", "name", "web", "image", "nginx:1", "tier", "front")
	exec := message("container", "exec_start: sh -c true", "abcdef", "name", "web")
	pull := message("image", "tag", "sha256:55", "name", "registry:5000/nginx:1")
	connect := message("network", "connect", "net1", "name", "bridge", "container", "abcdef")
	for _, test := range []struct {
		filter Filter
		msg    events.Message
		want   bool
	}{
		{nil, web, true},
		{Filter{"container": {"web"}}, web, true},
		{Filter{"container": {"abc"}}, web, true},
		{Filter{"container": {"db"}}, web, false},
		{Filter{"container": {"db", "web"}}, web, true},
		{Filter{"container": {"web"}}, pull, false},
		{Filter{"type": {"image"}}, web, false},
		{Filter{"type": {"image", "container"}}, web, true},
		{Filter{"event": {"start"}}, web, true},
		{Filter{"event": {"start"}}, exec, false},
		{Filter{"event": {"exec_start"}}, exec, true},
		{Filter{"event": {"exec_start: sh -c true"}}, exec, true},
		{Filter{"image": {"nginx"}}, web, true},
		{Filter{"image": {"nginx:1"}}, web, true},
		{Filter{"image": {"ngin"}}, web, false},
		{Filter{"image": {"registry:5000/nginx"}}, pull, true},
		{Filter{"image": {"registry"}}, pull, false},
		{Filter{"image": {"sha256:55"}}, pull, true},
		{Filter{"label": {"tier"}}, web, true},
		{Filter{"label": {"tier=front"}}, web, true},
		{Filter{"label": {"tier=front", "zone"}}, web, false},
		{Filter{"label": {"tier=back"}}, web, false},
		{Filter{"network": {"net"}}, connect, true},
		{Filter{"network": {"bridge"}, "event": {"disconnect"}}, connect, false},
		{Filter{"scope": {"swarm"}}, web, false},
		{Filter{"scope": {"local"}}, web, true},
	} {
		if got := test.filter.Include(test.msg); got != test.want {
			t.Errorf("%v on %s %s %s: %v", test.filter, test.msg.Type, test.msg.Action, test.msg.Actor.ID, got)
		}
	}
	if err := (Filter{"container": nil, "label": nil}).Check(); err != nil {
		t.Error(err)
	}
	if err := (Filter{"colour": {"red"}}).Check(); err == nil || err.Error() != "invalid filter 'colour'" {
		t.Errorf("got %v", err)
	}
}

// Megabytes of a command line or of labels, many times over, are not kept.
func TestHeavyMessages(t *testing.T) {
	var l Log
	s := l.Subscribe(time.Time{}, time.Time{}, nil)
	defer s.Close()
	heavy := strings.Repeat("x", 10<<20)
	for i := range 5 {
		l.Publish(events.ContainerEventType, "exec_start: "+events.Action(heavy), events.Actor{ID: strconv.Itoa(i), Attributes: map[string]string{"label": heavy}})
	}
	got := drain(t, l.Subscribe(time.Unix(1, 0), time.Now(), nil))
	if len(got) != 1 || got[0].Actor.ID != "4" {
		t.Errorf("%d of the past are kept", len(got))
	}
	if _, err := s.Next(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("a reader that is behind: %v", err)
	}
}

// A message that waits for many readers takes the memory of one.
func TestReadersShareMessages(t *testing.T) {
	var l Log
	a, b := l.Subscribe(time.Time{}, time.Time{}, nil), l.Subscribe(time.Time{}, time.Time{}, nil)
	defer a.Close()
	defer b.Close()
	publish(&l, 1)
	if a.queue.list[0] != b.queue.list[0] {
		t.Error("each has a copy")
	}
}
