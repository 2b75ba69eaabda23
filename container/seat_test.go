package container

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/supervise"
)

// seated is a service with one container that does not run, and a client's two
// ends.
func seated(t *testing.T) (s *Service, near net.Conn, far *os.File) {
	st := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, st, "x", "name", false)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	far = os.NewFile(uintptr(pair[0]), "far")
	t.Cleanup(func() { far.Close() })
	file := os.NewFile(uintptr(pair[1]), "near")
	defer file.Close()
	if near, err = net.FileConn(file); err != nil {
		t.Fatal(err)
	}
	return &Service{store: st, cfg: Config{Events: &event.Log{}}}, near, far
}

var streams = AttachOptions{Stdout: true, Stderr: true, Stream: true}

// awaitTaken waits until a start has taken the seats.
func awaitTaken(l *live) {
	for taken := false; !taken; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		taken = len(l.pending) == 0
		l.mu.Unlock()
	}
}

// A client that knows that it is attached may have the container started before
// this daemon has done anything more for it.
func TestStartWaitsForWhoIsAttached(t *testing.T) {
	s, near, _ := seated(t)
	l := s.lives.of("x")
	started := make(chan []attachment, 1)
	err := s.Attach(t.Context(), "x", streams, func(bool) (net.Conn, []byte, []byte, error) {
		go func() { started <- l.takePending(context.Background()) }()
		awaitTaken(l)
		return near, nil, nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if waiting := <-started; len(waiting) != 1 {
		t.Fatalf("%d clients were attached at the start", len(waiting))
	}
	if len(l.pending) != 0 {
		t.Error("the client waits for one more start")
	}
}

// Who does not come after all holds no start up.
func TestSeatIsGivenUp(t *testing.T) {
	s, _, _ := seated(t)
	l := s.lives.of("x")
	started := make(chan []attachment, 1)
	if err := s.Attach(t.Context(), "x", streams, func(bool) (net.Conn, []byte, []byte, error) {
		go func() { started <- l.takePending(context.Background()) }()
		awaitTaken(l)
		return nil, nil, nil, net.ErrClosed
	}); err == nil {
		t.Fatal("no error")
	}
	if waiting := <-started; len(waiting) != 0 {
		t.Error(waiting)
	}
}

// A start that has lost its patience is no reason to leave a client out of a run.
func TestMissedSeat(t *testing.T) {
	s, near, _ := seated(t)
	l := s.lives.of("x")
	if err := s.Attach(t.Context(), "x", streams, func(bool) (net.Conn, []byte, []byte, error) {
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if early := l.takePending(over); len(early) != 0 {
			t.Error(early)
		}
		return near, nil, nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	if waiting := l.takePending(t.Context()); len(waiting) != 1 {
		t.Errorf("%d clients wait for the next start", len(waiting))
	}
}

// From the moment that a container is seen to have ended, attach and wait mean
// its next run, although not everything of the end has been told yet.
func TestEndOnRecordIsTheEnd(t *testing.T) {
	s, near, _ := seated(t)
	l := s.lives.of("x")
	v := &vigil{containers: s, live: l}
	v.run, _ = l.begin(vanishedKeeper(t), nil)
	if _, err := s.store.Update("x", func(p *record.Progress) error { p.State = record.Running; return nil }); err != nil {
		t.Fatal(err)
	}
	v.record, _ = s.store.Find("x")
	before, err := s.Wait(t.Context(), "x", wire.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	updated, _, _ := v.conclude(supervise.Exit{Code: 7})
	after, err := s.Wait(t.Context(), "x", wire.WaitConditionNextExit)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(t.Context(), "x", streams, func(bool) (net.Conn, []byte, []byte, error) { return near, nil, nil, nil }); err != nil {
		t.Fatal(err)
	}
	l.end(v.run)
	l.tellEnd(updated, v.run)
	select {
	case w := <-after:
		t.Errorf("who waited for the next exit was told %d", w.StatusCode)
	default:
	}
	if w := <-before; w.StatusCode != 7 {
		t.Errorf("who waited for this exit was told %d", w.StatusCode)
	}
	if waiting := l.takePending(t.Context()); len(waiting) != 1 {
		t.Errorf("%d clients wait for the next start", len(waiting))
	}
}
