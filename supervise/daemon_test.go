package supervise_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// parent returns the parent of a process.
func parent(t testing.TB, pid int) int {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ppid, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return ppid
}

// reconnect drops the daemon's connection and makes a new one.
func (b *box) reconnect() {
	b.t.Helper()
	b.keeper.Close()
	k, err := supervise.Connect(b.ctx(), b.cfg.Dir)
	if err != nil {
		b.t.Fatalf("connect: %v", err)
	}
	b.keeper = k
}

func TestConnectAgain(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`echo one; read x; echo "two $x"; exit 11`)...)
		b.cfg.OpenStdin = true
		b.create(launcher(t, 0))
		b.start()
		before := b.keeper.Status()
		c := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
		b.reconnect()
		if s := b.keeper.Status(); s.Phase != supervise.PhaseRunning || s.Pid != before.Pid || !s.StartedAt.Equal(before.StartedAt) {
			t.Errorf("status %+v, was %+v", s, before)
		}
		c.write("x\n") // the client's socket does not depend on the daemon
		c.until("two x")
		b.wait(11)
		// a second daemon may come while the first is there
		second, err := supervise.Connect(b.ctx(), b.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		b.keeper.Close()
		b.keeper = second
		if e := b.wait(11); e.ExitedAt.IsZero() {
			t.Errorf("exit: %+v", e)
		}
		b.release()
		if e, err := supervise.ReadExit(b.cfg.Dir); err != nil || e.Code != 11 {
			t.Errorf("record: %+v, %v", e, err)
		}
		if _, err := supervise.Connect(b.ctx(), b.cfg.Dir); !errors.Is(err, fault.NotFound) {
			t.Errorf("connect after the release: %v", err)
		}
	})
}

func TestExitWithoutDaemon(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`sleep 0.2; echo last words; exit 12`)...)
		b.create(launcher(t, 0))
		b.start()
		b.keeper.Close()
		testutil.Eventually(t, 10*time.Second, "the exit is recorded", func() bool {
			_, err := supervise.ReadExit(b.cfg.Dir)
			return err == nil
		})
		if e, err := supervise.ReadExit(b.cfg.Dir); err != nil || e.Code != 12 {
			t.Errorf("record: %+v, %v", e, err)
		}
		if got := b.log("stdout"); got != "last words\n" {
			t.Errorf("log: %q", got)
		}
		testutil.Eventually(t, 10*time.Second, "cgroup and process are gone", func() bool {
			left, _ := filepath.Glob("/sys/fs/cgroup/*" + b.spec.Linux.CgroupsPath)
			_, err := supervise.Connect(b.ctx(), b.cfg.Dir)
			return len(left) == 0 && errors.Is(err, fault.NotFound)
		})
	})
}

// The daemon is a process of its own here, and killed.
func TestDaemonKilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`i=0; while read x; do i=$((i+1)); echo "$i $x"; done; exit 13`)...)
		b.cfg.OpenStdin, b.cfg.StdinOnce = true, true
		b.writeConfig()
		in, err := json.Marshal(map[string]any{"Program": program, "Config": b.cfg})
		if err != nil {
			t.Fatal(err)
		}
		daemon := exec.Command("/proc/self/exe")
		daemon.Env = append(os.Environ(), helperEnv+"="+string(in))
		out, err := daemon.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		if line != "up\n" {
			t.Fatalf("the daemon said %q", line)
		}
		daemon.Process.Kill()
		daemon.Wait()

		if b.keeper, err = supervise.Connect(b.ctx(), b.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		init := b.keeper.Pid()
		t.Cleanup(func() { b.nothingLeft(init) })
		c := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
		c.write("a\nb\n")
		c.CloseWrite()
		if got := c.all(); got != "1 a\n2 b\n" {
			t.Errorf("got %q", got)
		}
		b.wait(13)
		b.release()
	})
}

func TestSupervisorKilled(t *testing.T) { supervisorKilled(t, false) }

// A paused container's init dies, too.
func TestSupervisorKilledOfPaused(t *testing.T) { supervisorKilled(t, true) }

func supervisorKilled(t *testing.T, paused bool) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		// the orphan is to become ours: others collect it late
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		b := newBox(t, rt, "/bin/busybox", "sleep", "100")
		b.create(launcher(t, 0))
		b.start()
		init := b.keeper.Pid()
		if paused {
			if err := b.keeper.Pause(b.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Kill(parent(t, init), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := b.keeper.Wait(b.ctx()); !errors.Is(err, fault.Unavailable) {
			t.Errorf("wait: %v", err)
		}
		if _, err := supervise.Connect(b.ctx(), b.cfg.Dir); !errors.Is(err, fault.NotFound) {
			t.Errorf("connect: %v", err)
		}
		if err := supervise.KillInit(b.cfg.Dir); err != nil {
			t.Fatal(err)
		}
		testutil.Eventually(t, 10*time.Second, "the init is dead", func() bool {
			pid, _ := unix.Wait4(init, nil, unix.WNOHANG, nil) // ECHILD until it is ours
			return pid == init
		})
		// what the runtime left is the caller's to remove
		for _, dir := range cgroups(b) {
			testutil.Eventually(t, 10*time.Second, "the cgroup can be removed", func() bool { return os.Remove(dir) == nil })
		}
	})
}

func cgroups(b *box) []string {
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + b.spec.Linux.CgroupsPath)
	return left
}

// serve plays a supervising process that answers one request.
func serve(t *testing.T, answer func(supervise.Message) supervise.Message) string {
	t.Helper()
	dir := t.TempDir()
	l, err := seqpacket.Listen(filepath.Join(dir, supervise.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for {
				msg, _, err := c.Recv()
				if err != nil {
					break
				}
				var m supervise.Message
				json.Unmarshal(msg, &m)
				reply, _ := json.Marshal(answer(m))
				c.Send(reply)
			}
			c.Close()
		}
	}()
	return dir
}

func TestNewerProtocolIsRefused(t *testing.T) {
	dir := serve(t, func(m supervise.Message) supervise.Message {
		return supervise.Message{ID: m.ID, Body: json.RawMessage(`{"Version":2,"Status":{"Phase":"frozen"}}`)}
	})
	_, err := supervise.Connect(t.Context(), dir)
	if !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "protocol version 2") {
		t.Errorf("connect: %v", err)
	}
}

func TestUnknownRequestIsRefused(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, "/bin/busybox", "sleep", "100")
		b.create(launcher(t, 0))
		c, err := seqpacket.Dial(filepath.Join(b.cfg.Dir, supervise.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Send([]byte(`{"id":7,"method":"levitate","body":{"height":3}}`)); err != nil {
			t.Fatal(err)
		}
		msg, _, err := c.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var m supervise.Message
		if err := json.Unmarshal(msg, &m); err != nil || m.ID != 7 {
			t.Fatalf("answer %s: %v", msg, err)
		}
		if err := m.Error.Err(); !errors.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), `"levitate"`) {
			t.Errorf("error: %v", err)
		}
	})
}
