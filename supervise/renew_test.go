package supervise_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// renewed waits until the supervising process has executed itself, which it does
// when its container has run for a while.
func (b *box) renewed() (pid int) {
	b.t.Helper()
	pid = parent(b.t, b.keeper.Pid())
	testutil.Eventually(b.t, 20*time.Second, "the supervising process has executed itself", func() bool {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return bytes.Count(line, []byte{0}) == 2
	})
	return pid
}

// A container notices nothing of the new life of its supervising process, and
// neither does the daemon: output, the beginning of a line, an exec's end, a
// pause, a file and the exit status are what they would have been.
func TestRenewal(t *testing.T) {
	testutil.RequireRoot(t)
	b := newBox(t, supervise.Runtime{}, shell(`echo one; printf tw; i=0; while [ ! -e /tmp/go ]; do i=$((i+1)); echo $i >&2; done; echo o; read x; echo "three $x"; exit 7`)...)
	b.cfg.OpenStdin = true
	pipe, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b.cfg.Held = []*os.File{theirs}
	b.create(launcher(t, 0))
	theirs.Close()
	b.start()
	c := b.execConfig("before", shell("echo output; exit 3")...)
	c.Keep = 100
	if _, err := b.keeper.Execs.Start(b.ctx(), c, nil); err != nil {
		t.Fatal(err)
	}
	before := b.keeper.Status()
	pid := b.renewed()
	if list, err := b.keeper.Execs.List(b.ctx()); err != nil || len(list) != 1 || list[0].ID != "before" {
		t.Errorf("execs: %+v, %v", list, err)
	}
	if e, err := b.keeper.Execs.Wait(b.ctx(), "before"); err != nil || e.Code != 3 || string(e.Output) != "output\n" || e.EndedAt.Before(before.StartedAt) {
		t.Errorf("the exec ended so: %+v, %v", e, err)
	}
	unix.Kill(pid, unix.SIGTERM) // it obeys the daemon alone
	unix.Kill(pid, unix.SIGHUP)
	b.reconnect()
	if s := b.keeper.Status(); s.Phase != supervise.PhaseRunning || s.Pid != before.Pid || !s.StartedAt.Equal(before.StartedAt) {
		t.Errorf("status %+v, was %+v", s, before)
	}
	b.execNow("go", "echo > /tmp/go")
	near := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true, Logs: true})
	near.write("x\n")
	near.until("three x")
	b.wait(7)
	if got := b.log("stdout"); got != "one\ntwo\nthree x\n" {
		t.Errorf("log: %q", got)
	}
	for i, line := range strings.Fields(b.log("stderr")) {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d of the errors is %q", i+1, line)
		}
	}
	pipe.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if _, err := pipe.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("the file that the process holds was closed: %v", err)
	}
	b.release()
	pipe.SetReadDeadline(time.Now().Add(testutil.Patience(10 * time.Second)))
	if _, err := pipe.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the file is held after the release: %v", err)
	}
}

// A paused one, with a terminal, lives on likewise, and its shortages of memory
// are told.
func TestRenewalOfAPausedOne(t *testing.T) {
	testutil.RequireRoot(t)
	b := newBox(t, supervise.Runtime{}, shell(`echo; while :; do read x; echo "got $x"; done`)...)
	b.cfg.TTY, b.cfg.OpenStdin, b.cfg.WatchOOM = true, true, true
	b.create(launcher(t, 0))
	b.start()
	if err := b.keeper.Pause(b.ctx()); err != nil {
		t.Fatal(err)
	}
	b.renewed()
	b.reconnect()
	if s := b.keeper.Status(); !s.Paused || !b.frozen() {
		t.Errorf("it is not paused any more: %+v", s)
	}
	if err := b.keeper.Unpause(b.ctx()); err != nil {
		t.Fatal(err)
	}
	near := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
	near.write("this\n")
	near.until("got this")
	if err := b.keeper.Resize(b.ctx(), 20, 30); err != nil {
		t.Error(err)
	}
	if dir := filepath.Join("/sys/fs/cgroup/memory", b.spec.Linux.CgroupsPath); exists(dir) {
		if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte("4194304"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := b.keeper.Execs.Start(b.ctx(), b.execConfig("hog", "/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"), nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-b.keeper.OOM():
		case <-time.After(testutil.Patience(20 * time.Second)):
			t.Error("nobody was told of the shortage of memory")
		}
	}
	if err := b.keeper.Kill(b.ctx()); err != nil {
		t.Fatal(err)
	}
	b.wait(137)
	b.release()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
