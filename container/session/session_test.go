package session

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// A client that saw the end of an exec's output before the daemon heard of its
// beginning gets the exit code all the same.
func TestSettleBeforeMade(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		n := New("x", "c")
		if err := n.Begin(); err != nil {
			t.Fatal(err)
		}
		settled := false
		go func() { n.Settle(t.Context()); settled = true }()
		still := func(when string) {
			t.Helper()
			synctest.Wait()
			if settled {
				t.Fatalf("settled %s", when)
			}
		}
		still("before its beginning")
		n.Exists(cmd.Process.Pid)
		still("before its end")
		n.end(9)
		synctest.Wait()
		if !settled || *n.code != 9 {
			t.Errorf("settled: %v, the exit code is %v", settled, *n.code)
		}
	})
}

// What has ended is forgotten within five minutes, and nothing waits for that
// when there is nothing to forget.
func TestExecsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewTable()
		ended, prepared := New("ended", "c"), New("prepared", "c")
		for _, n := range []*Session{ended, prepared} {
			n.Request.Cmd = []string{"true"}
			e.Add(n)
		}
		e.End(ended, 3)
		time.Sleep(sweepTime + time.Second)
		found, err := e.Find("ended")
		if err != nil {
			t.Fatal(err)
		}
		state := found.Inspect()
		if state.ExitCode == nil || *state.ExitCode != 3 || !state.CanRemove {
			t.Fatalf("after the first sweep: %+v", state)
		}
		time.Sleep(sweepTime)
		if _, err := e.Find("ended"); !errors.Is(err, fault.NotFound) || err.Error() != "No such exec instance: ended" {
			t.Errorf("after the second: %v", err)
		}
		if e.sweeping != nil {
			t.Error("sweeping goes on")
		}
		if ids := e.Of("c"); !slices.Equal(ids, []string{"prepared"}) {
			t.Errorf("the execs of the container: %v", ids)
		}
		e.Forget("c")
		if len(e.byID)+len(e.byContainer) != 0 {
			t.Errorf("left: %v, %v", e.byID, e.byContainer)
		}
	})
}

// What the supervising process tells makes the same answer as before the
// daemon's restart.
func TestExecIsRestored(t *testing.T) {
	n := New("x", "c")
	n.Request = wire.ExecCreateRequest{Cmd: []string{"sh", "-c", "x"}, Tty: true, Privileged: true, AttachStdin: true, AttachStderr: true, DetachKeys: "ctrl-a"}
	n.User, n.Keys = "daemon", []byte{1}
	var of Note
	if err := json.Unmarshal(n.Note(), &of); err != nil {
		t.Fatal(err)
	}
	e := NewTable()
	e.Add(n)
	if err := n.Begin(); err != nil {
		t.Fatal(err)
	}
	n.Exists(os.Getpid())
	before := n.Inspect()
	e.Add(Restored("c", supervise.ExecStatus{ID: "x", Pid: os.Getpid(), Args: n.Request.Cmd, TTY: true}, of))
	if d := cmp.Diff(before, e.byID["x"].Inspect()); d != "" {
		t.Error(d)
	}
	if err := e.byID["x"].Begin(); !errors.Is(err, fault.Conflict) || err.Error() != "exec command x is already running" {
		t.Errorf("starting it again: %v", err)
	}
	e.byID["x"].end(0)
	if err := e.byID["x"].Begin(); !errors.Is(err, fault.Conflict) || err.Error() != "exec command x has already run" {
		t.Errorf("starting it after its end: %v", err)
	}
}
