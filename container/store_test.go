package container

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/create"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/tasks"
	"github.com/tarehq/tare/supervise"
)

// A container can make its /etc/hosts a set-uid program of root's.
func TestBundlesAreClosedToUsersOfTheHost(t *testing.T) {
	dir := t.TempDir() + "/c"
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := (&bundles{dir: dir}).open(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// A start that the restart policy has under way would not notice a stop.
func TestStopWaitsForTheRestartUnderWay(t *testing.T) {
	st := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, st, "x", "name", false)
	for _, state := range []record.State{record.Running, record.Restarting} {
		if _, err := st.Update("x", func(p *record.Progress) error { p.State = state; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	s := &Service{store: st, cfg: Config{Events: &event.Log{}}}
	unlock, err := s.ops.Lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(gone, "x", StopOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a stop during a start: %v", err)
	}
	if err := s.Kill(gone, "x", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a kill during a start: %v", err)
	}
	unlock()
	if err := s.Stop(t.Context(), "x", StopOptions{}); err != nil {
		t.Error(err)
	}
	if r, err := st.Find("x"); err != nil || r.State != record.Exited {
		t.Errorf("after the stop: %s, %v", r.State, err)
	}
}

// The end of a run is written while its container is being removed: that it is
// gone is no failure to write.
func TestRemovedWhileItsStateIsWritten(t *testing.T) {
	st := recordtest.Store(t, t.TempDir())
	for i := range 100 {
		id := strconv.Itoa(i)
		recordtest.Add(t, st, id, "name"+id, false)
		begun, written := make(chan struct{}), make(chan error)
		go func() {
			close(begun)
			for range 20 {
				if err := st.Flush(id); err != nil {
					written <- err
					return
				}
			}
			written <- nil
		}()
		<-begun
		if _, err := st.Remove(id); err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
}

// An operation waits for the events of the end that it sees on record.
func TestOperationComesAfterTheEnd(t *testing.T) {
	st := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, st, "x", "name", false)
	s := &Service{store: st}
	run, _ := s.lives.of("x").begin(nil, errOver)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := s.lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the end: %v", err)
	}
	s.lives.of("x").end(run)
	_, unlock, err := s.lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// A run whose supervising process is not connected is out of reach, with a reason.
func TestRunIsOutOfReach(t *testing.T) {
	st := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, st, "x", "name", false)
	s := &Service{store: st, bundles: bundles{dir: t.TempDir()}, tasks: tasks.New()}
	v := &vigil{containers: s, record: Record{Spec: record.Spec{ID: "x"}}, live: s.lives.of("x")}
	v.run, _ = v.live.begin(nil, nil)
	if keeper := v.regain(errOver); keeper != nil {
		t.Error("there is a supervising process")
	}
	if _, _, err := s.lives.running(v.record); !errors.Is(err, errOver) {
		t.Errorf("out of reach: %v", err)
	}
}

func TestErrorOfARun(t *testing.T) {
	gone := fault.New(fault.Unavailable, "gone")
	ended := make(chan struct{})
	close(ended)
	if err := ofRun(Record{}, ended, gone); !errors.Is(err, fault.Conflict) {
		t.Errorf("at the end: %v", err)
	}
	if err := ofRun(Record{}, ended, nil); err != nil {
		t.Error(err)
	}
}

// A container that ends by itself while it is told to has been stopped.
func TestStopOfWhatHasJustEnded(t *testing.T) {
	dir := t.TempDir()
	st := recordtest.Store(t, dir)
	recordtest.Add(t, st, "x", "name", false)
	if _, err := st.Update("x", func(p *record.Progress) error { p.State = record.Running; return nil }); err != nil {
		t.Fatal(err)
	}
	s := &Service{store: st, cfg: Config{Events: &event.Log{}}}
	s.lives.of("x").begin(vanishedKeeper(t), nil)
	close(s.lives.of("x").run.ended)
	none := 0
	if err := s.Stop(t.Context(), "x", StopOptions{Timeout: &none}); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := s.Kill(t.Context(), "x", ""); err != nil {
		t.Errorf("kill: %v", err)
	}
}

// vanishedKeeper is the connection to a supervising process that has answered
// once and is gone.
func vanishedKeeper(t *testing.T) *supervise.Keeper {
	dir := t.TempDir()
	l, err := net.Listen("unixpacket", filepath.Join(dir, supervise.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		if c, err := l.Accept(); err == nil {
			c.Read(make([]byte, 1<<16))
			c.Write([]byte(`m{"id":1,"body":{"Version":1}}`)) // m as seqpacket has it: the message follows
			c.Close()
		}
	}()
	k, err := supervise.Connect(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	<-k.Gone()
	return k
}

func TestSharedNamespacesAreKeptByID(t *testing.T) {
	st := recordtest.Store(t, t.TempDir())
	recordtest.Add(t, st, "0123456789ab", "other", false)
	s := &Service{store: st}
	h := &wire.HostConfig{PidMode: "container:0123", NetworkMode: "container:other"}
	c := &creation{containers: s, req: &create.Request{HostConfig: h}}
	c.shareByID()
	if h.PidMode != "container:0123456789ab" || h.NetworkMode != "container:0123456789ab" {
		t.Errorf("pid %q, network %q", h.PidMode, h.NetworkMode)
	}
	h = &wire.HostConfig{PidMode: "host", NetworkMode: "bridge"}
	c.req.HostConfig = h
	if c.shareByID(); h.PidMode != "host" || h.NetworkMode != "bridge" {
		t.Errorf("pid %q, network %q", h.PidMode, h.NetworkMode)
	}
}
