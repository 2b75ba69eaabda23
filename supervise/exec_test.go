package supervise_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// sleeper is a running container to execute in.
func sleeper(t *testing.T, rt supervise.Runtime) *box {
	t.Helper()
	b := newBox(t, rt, "/bin/busybox", "sleep", "100")
	b.create(launcher(t, 0))
	b.start()
	return b
}

func (b *box) execConfig(id string, args ...string) supervise.ExecConfig {
	return supervise.ExecConfig{ID: id, Process: specs.Process{
		Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Capabilities: b.spec.Process.Capabilities,
	}}
}

// exec runs a process with a client attached.
func (b *box) exec(c supervise.ExecConfig) *client {
	b.t.Helper()
	near, theirs := socketPair(b.t)
	defer theirs.Close()
	pid, err := b.keeper.Execs.Start(b.ctx(), c, theirs)
	if err != nil {
		b.t.Fatalf("exec: %v", err)
	}
	if pid <= 0 {
		b.t.Errorf("exec has pid %d", pid)
	}
	return near
}

func (b *box) execWait(id string, code int) {
	b.t.Helper()
	got, err := b.keeper.Execs.Wait(b.ctx(), id)
	if err != nil || got.Code != code {
		b.t.Errorf("exec %s: code %d, %v; want %d", id, got.Code, err, code)
	}
}

// The exit code is the last that a client hears who wants to.
func TestExecExitOnTheStream(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		c := b.execConfig("a", shell(`echo out; exit 21`)...)
		c.Attach = supervise.AttachOptions{Stdout: true, Multiplexed: true, Exit: true}
		const want = "\x01\x00\x00\x00\x00\x00\x00\x04out\n" + "\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x15"
		if got := b.exec(c).all(); string(got) != want {
			t.Errorf("%q", got)
		}
	})
}

func TestExec(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		c := b.execConfig("a", shell(`cat; echo err >&2; exit 21`)...)
		c.Attach = supervise.AttachOptions{Stdin: true, Stdout: true, Stderr: true, Multiplexed: true}
		near := b.exec(c)
		near.write("input")
		near.CloseWrite()
		stdout, stderr := demux(t, near.all())
		if stdout != "input" || stderr != "err\n" {
			t.Errorf("got %q and %q", stdout, stderr)
		}
		b.execWait("a", 21)
		b.execWait("a", 21) // still known
		if log := b.log("stdout"); log != "" {
			t.Errorf("the exec wrote to the container's log: %q", log)
		}
		if _, err := b.keeper.Execs.Wait(b.ctx(), "never"); !errors.Is(err, fault.NotFound) {
			t.Errorf("waiting for an unknown exec: %v", err)
		}
	})
}

func TestExecTerminal(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		c := b.execConfig("tty", shell(`stty -echo; stty size; read x; stty size; exit 22`)...)
		c.Process.Terminal = true
		c.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
		c.Attach = supervise.AttachOptions{Stdin: true, Stdout: true, Stderr: true}
		near := b.exec(c)
		near.until("33 77")
		if err := b.keeper.Execs.Resize(b.ctx(), "tty", 44, 88); err != nil {
			t.Fatal(err)
		}
		near.write("\n")
		if got := near.all(); !strings.Contains(got, "44 88") {
			t.Errorf("after the resize: %q", got)
		}
		b.execWait("tty", 22)
	})
}

func TestExecDetachKeys(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		c := b.execConfig("d", shell(`echo ready; read x; exit 23`)...)
		c.Process.Terminal = true
		c.Attach = supervise.AttachOptions{Stdin: true, Stdout: true, DetachKeys: []byte("q")}
		near := b.exec(c)
		near.until("ready")
		near.write("q")
		near.all()
		select {
		case e := <-b.keeper.Detached():
			if e.ExecID != "d" {
				t.Errorf("detached from %+v", e)
			}
		case <-time.After(testutil.Patience(5 * time.Second)):
			t.Error("no detach event")
		}
		ctx, cancel := context.WithTimeout(b.ctx(), 50*time.Millisecond)
		defer cancel()
		if _, err := b.keeper.Execs.Wait(ctx, "d"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the exec did not go on: %v", err)
		}
	})
}

func TestExecWithoutClient(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		if _, err := b.keeper.Execs.Start(b.ctx(), b.execConfig("x", shell(`seq 1 50000; echo done > /tmp/mark; exit 24`)...), nil); err != nil {
			t.Fatal(err)
		}
		b.execWait("x", 24)
		tty := b.execConfig("y", shell(`seq 1 50000; exit 25`)...)
		tty.Process.Terminal = true
		if _, err := b.keeper.Execs.Start(b.ctx(), tty, nil); err != nil {
			t.Fatal(err)
		}
		b.execWait("y", 25)
	})
}

func TestExecMissingProgram(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		near, theirs := socketPair(t)
		_, err := b.keeper.Execs.Start(b.ctx(), b.execConfig("no", "no-such-program"), theirs)
		if !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), `exec: "no-such-program": executable file not found in $PATH`) {
			t.Errorf("error is %q of kind %v", err, fault.KindOf(err))
		}
		// the socket is the caller's still, to tell the client
		if _, err := theirs.Write([]byte("sorry")); err != nil {
			t.Error(err)
		}
		theirs.Close()
		if got := near.all(); got != "sorry" {
			t.Errorf("the client got %q", got)
		}
		// and the ID is free
		c := b.execConfig("no", "/bin/busybox", "true")
		if _, err := b.keeper.Execs.Start(b.ctx(), c, nil); err != nil {
			t.Error(err)
		}
		b.execWait("no", 0)
	})
}

// A background process of an exec holds its output open: the client is
// released all the same, and what was written until then arrives.
func TestExecLeavesProcess(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		c := b.execConfig("bg", shell(`sleep 60 & echo started`)...)
		c.Attach = supervise.AttachOptions{Stdout: true}
		if got := b.exec(c).all(); got != "started\n" {
			t.Errorf("got %q", got)
		}
		b.execWait("bg", 0)
	})
}

func TestExecEndsWithContainer(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		c := b.execConfig("e", "/bin/busybox", "sleep", "100")
		c.Attach = supervise.AttachOptions{Stdout: true}
		near := b.exec(c)
		if err := b.keeper.Kill(b.ctx()); err != nil {
			t.Fatal(err)
		}
		near.all()
		b.execWait("e", 128+9)
		b.wait(128 + 9)
		b.release()
	})
}

func TestManyExecsAtOnce(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		done := make(chan error)
		for i := range 10 {
			go func() {
				id := string(rune('a' + i))
				if _, err := b.keeper.Execs.Start(b.ctx(), b.execConfig(id, shell("exit "+string(rune('0'+i)))...), nil); err != nil {
					done <- err
					return
				}
				exit, err := b.keeper.Execs.Wait(b.ctx(), id)
				if err == nil && exit.Code != i {
					err = errors.New("wrong code")
				}
				done <- err
			}()
		}
		for range 10 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		testutil.Eventually(t, 5*time.Second, "no zombie is left", func() bool { return !zombies(t, parent(t, b.keeper.Pid())) })
	})
}

// A connection made later is told of the execs: what they are, whether they
// run, how they ended.
func TestExecsAreTold(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		over, runs := b.execConfig("over", shell("exit 26")...), b.execConfig("runs", "/bin/busybox", "sleep", "100")
		over.Note, runs.Process.Terminal = []byte("a note"), true
		for _, c := range []supervise.ExecConfig{over, runs} {
			if _, err := b.keeper.Execs.Start(b.ctx(), c, nil); err != nil {
				t.Fatal(err)
			}
		}
		b.execWait("over", 26)
		later, err := supervise.Connect(b.ctx(), b.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer later.Close()
		list, err := later.Execs.List(b.ctx())
		if err != nil || len(list) != 2 {
			t.Fatalf("told of %+v, %v", list, err)
		}
		if e := list[0]; e.ID != "over" || string(e.Note) != "a note" || e.Pid == 0 || e.TTY || e.Exit == nil || e.Exit.Code != 26 || e.Exit.EndedAt.IsZero() {
			t.Errorf("of one that has ended: %+v", e)
		}
		if e := list[1]; e.ID != "runs" || !e.TTY || e.Exit != nil || strings.Join(e.Args, " ") != "/bin/busybox sleep 100" {
			t.Errorf("of one that runs: %+v", e)
		}
		if err := later.Execs.Kill(b.ctx(), "runs"); err != nil {
			t.Fatal(err)
		}
		b.execWait("runs", 128+9)
		if err := later.Execs.Kill(b.ctx(), "runs"); !errors.Is(err, fault.Conflict) {
			t.Errorf("killing it again: %v", err)
		}
	})
}

// The beginning of the output is kept, told once with the end, and the rest
// dropped; a kill takes what the process has started with it.
func TestExecKeepsOutput(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := sleeper(t, rt)
		c := b.execConfig("k", shell(`echo out; sleep 0.1; echo err >&2; sleep 0.1; seq 1 200000; sleep 1000 & echo $! > /tmp/left; wait`)...)
		c.Keep = 10
		if _, err := b.keeper.Execs.Start(b.ctx(), c, nil); err != nil {
			t.Fatal(err)
		}
		b.execNow("left", `while ! test -s /tmp/left; do sleep 0.02; done`)
		if err := b.keeper.Execs.Kill(b.ctx(), "k"); err != nil {
			t.Fatal(err)
		}
		exit, err := b.keeper.Execs.Wait(b.ctx(), "k")
		if err != nil || exit.Code != 128+9 || string(exit.Output) != "out\nerr\n1\n" || !exit.More {
			t.Errorf("it ended with %+v, %v", exit, err)
		}
		if _, err := b.keeper.Execs.Wait(b.ctx(), "k"); !errors.Is(err, fault.NotFound) {
			t.Errorf("told again: %v", err)
		}
		b.execNow("gone", `while grep -q '^State:.[SR]' /proc/$(cat /tmp/left)/status; do sleep 0.02; done`)
	})
}

// execNow runs a script in the container that succeeds.
func (b *box) execNow(id, script string) {
	b.t.Helper()
	if _, err := b.keeper.Execs.Start(b.ctx(), b.execConfig(id, shell(script)...), nil); err != nil {
		b.t.Fatal(err)
	}
	b.execWait(id, 0)
}
