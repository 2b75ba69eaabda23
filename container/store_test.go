package container

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/tasks"
	"github.com/tarehq/tare/supervise"
)

func testStore(t *testing.T, dir string) *store {
	t.Helper()
	s, err := openStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func addRecord(t *testing.T, s *store, id, name string, auto bool) {
	t.Helper()
	r := &Record{Spec: Spec{ID: id, Name: name, Created: time.Now(), Config: &wire.Config{}, HostConfig: &wire.HostConfig{AutoRemove: auto}},
		Progress: Progress{State: Created}}
	if err := s.reserve(name, id); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.path(id), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.add(r); err != nil {
		t.Fatal(err)
	}
}

func TestStoreSurvivesReopen(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	addRecord(t, s, "aa11", "one", false)
	addRecord(t, s, "aa22", "two", false)
	if _, err := s.update("aa11", func(p *Progress) error { p.State, p.Pid = Running, 7; return nil }); err != nil {
		t.Fatal(err)
	}
	// What a crash leaves: a create that was never acknowledged, a removal
	// that was not finished, a state that power loss tore.
	for _, d := range []string{"bb00", "cc00" + removingSuffix, "dd00"} {
		if err := os.Mkdir(s.path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.path("dd00", "record.json"), make([]byte, 100), 0o600); err != nil { // as ext4 leaves it
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("aa22", "state.json"), []byte(`{"State":"run`), 0o600); err != nil {
		t.Fatal(err)
	}
	s = testStore(t, dir)
	one, err := s.find("one")
	if err != nil || one.State != Running || one.Pid != 7 {
		t.Errorf("one: %+v, %v", one.Progress, err)
	}
	two, err := s.find("/two")
	if err != nil || two.State != Running { // it ran; its policy decides what follows
		t.Errorf("two: %+v, %v", two.Progress, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// What has happened is known though it cannot be written.
func TestNote(t *testing.T) {
	s := testStore(t, t.TempDir())
	addRecord(t, s, "aa11", "one", false)
	if err := os.MkdirAll(s.path("aa11", "state.json", "in", "the", "way"), 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(p *Progress) error { p.State = Running; return nil }
	if _, err := s.update("aa11", run); err == nil {
		t.Error("update hides that it could not write")
	}
	if r, err := s.note("aa11", func(p *Progress) error { p.State = Exited; return nil }); err != nil || r.State != Exited {
		t.Errorf("note: %v, %v", r.State, err)
	}
	if r, err := s.find("aa11"); err != nil || r.State != Exited {
		t.Errorf("known is %v, %v", r.State, err)
	}
	if _, err := s.note("aa11", func(p *Progress) error { p.State = Created; return nil }); err == nil {
		t.Error("note allows a change that is none")
	}
}

func TestFind(t *testing.T) {
	s := testStore(t, t.TempDir())
	addRecord(t, s, "aa11", "one", true)
	addRecord(t, s, "aa22", "aa", true) // a name that is a prefix of IDs
	for query, want := range map[string]string{"one": "aa11", "/one": "aa11", "aa1": "aa11", "aa": "aa22", "aa22": "aa22"} {
		if r, err := s.find(query); err != nil || r.ID != want {
			t.Errorf("%s: %s, %v; want %s", query, r.ID, err, want)
		}
	}
	if _, err := s.find("a"); !errors.Is(err, fault.Invalid) {
		t.Errorf("an ambiguous prefix: %v", err)
	}
	if _, err := s.find("zz"); !errors.Is(err, fault.NotFound) {
		t.Errorf("an unknown name: %v", err)
	}
	if err := s.reserve("one", "zz"); !errors.Is(err, fault.Conflict) {
		t.Errorf("a taken name: %v", err)
	}
	s.remove("aa11")
	if err := s.reserve("one", "zz"); err != nil {
		t.Errorf("the name of a removed container: %v", err)
	}
}

func TestUpdateRefusesWhatTheTableHasNot(t *testing.T) {
	s := testStore(t, t.TempDir())
	addRecord(t, s, "aa11", "one", false)
	if _, err := s.update("aa11", func(p *Progress) error { p.State = Restarting; return nil }); err == nil {
		t.Error("a created container is restarting")
	}
	if r, _ := s.find("one"); r.State != Created {
		t.Errorf("a refused change was kept: %s", r.State)
	}
}

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
	st := testStore(t, t.TempDir())
	addRecord(t, st, "x", "name", false)
	for _, state := range []State{Running, Restarting} {
		if _, err := st.update("x", func(p *Progress) error { p.State = state; return nil }); err != nil {
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
	if r, err := st.find("x"); err != nil || r.State != Exited {
		t.Errorf("after the stop: %s, %v", r.State, err)
	}
}

// The end of a run is written while its container is being removed: that it is
// gone is no failure to write.
func TestRemovedWhileItsStateIsWritten(t *testing.T) {
	st := testStore(t, t.TempDir())
	for i := range 100 {
		id := strconv.Itoa(i)
		addRecord(t, st, id, "name"+id, false)
		begun, written := make(chan struct{}), make(chan error)
		go func() {
			close(begun)
			for range 20 {
				if err := st.flush(id); err != nil {
					written <- err
					return
				}
			}
			written <- nil
		}()
		<-begun
		if _, err := st.remove(id); err != nil {
			t.Fatal(err)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
}

// An operation waits for the events of the end that it sees on record.
func TestOperationComesAfterTheEnd(t *testing.T) {
	st := testStore(t, t.TempDir())
	addRecord(t, st, "x", "name", false)
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
	st := testStore(t, t.TempDir())
	addRecord(t, st, "x", "name", false)
	s := &Service{store: st, bundles: bundles{dir: t.TempDir()}, tasks: tasks.New()}
	v := &vigil{containers: s, record: Record{Spec: Spec{ID: "x"}}, live: s.lives.of("x")}
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

func TestLongestStopTime(t *testing.T) {
	if inSeconds(3) != 3*time.Second || inSeconds(math.MaxInt) < 200*365*24*time.Hour {
		t.Error(inSeconds(3), inSeconds(math.MaxInt))
	}
	endless := math.MaxInt
	if d := (Record{Spec: Spec{Config: &wire.Config{StopTimeout: &endless}}}).stopTimeout(); d < 0 {
		t.Error(d)
	}
}

// A container that ends by itself while it is told to has been stopped.
func TestStopOfWhatHasJustEnded(t *testing.T) {
	dir := t.TempDir()
	st := testStore(t, dir)
	addRecord(t, st, "x", "name", false)
	if _, err := st.update("x", func(p *Progress) error { p.State = Running; return nil }); err != nil {
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

func TestDamagedRecordIsRemembered(t *testing.T) {
	dir := t.TempDir()
	addRecord(t, testStore(t, dir), "x", "name", false)
	if err := os.WriteFile(dir+"/x/record.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testStore(t, dir)
	if _, err := s.find("x"); !errors.Is(err, fault.NotFound) || !s.damaged["x"] {
		t.Errorf("damaged %v, %v", s.damaged, err)
	}
}

func TestSharedNamespacesAreKeptByID(t *testing.T) {
	st := testStore(t, t.TempDir())
	addRecord(t, st, "0123456789ab", "other", false)
	s := &Service{store: st}
	h := &wire.HostConfig{PidMode: "container:0123", NetworkMode: "container:other"}
	c := &creation{containers: s, req: &CreateRequest{HostConfig: h}}
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
