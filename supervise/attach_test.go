package supervise_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

func TestStdinHalfClose(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, "/bin/busybox", "cat")
		b.cfg.OpenStdin, b.cfg.StdinOnce = true, true
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true, Buffered: []byte("before ")})
		b.start()
		c.write("after")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := c.all(); got != "before after" {
			t.Errorf("came back: %q", got)
		}
		b.wait(0)
		b.release()
	})
}

func TestStdinStaysOpenBetweenClients(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`read a; read b; echo "$a $b"`)...)
		b.cfg.OpenStdin = true
		b.create(launcher(t, 0))
		b.start()
		first := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
		first.write("one\n")
		first.CloseWrite()
		if got := first.all(); got != "" {
			t.Errorf("the first client got %q", got)
		}
		second := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
		second.write("two\n")
		if got := second.all(); got != "one two\n" {
			t.Errorf("the second client got %q", got)
		}
		b.wait(0)
		b.release()
	})
}

func TestNoStdin(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`cat; echo end`)...)
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
		c.write("ignored")
		b.start()
		b.wait(0)
		if got := c.all(); got != "end\n" {
			t.Errorf("got %q", got)
		}
		b.release()
	})
}

func TestTerminal(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`stty -echo; stty size; read x; stty size; echo "got $x"; exit 5`)...)
		b.cfg.TTY, b.cfg.OpenStdin, b.cfg.ConsoleSize = true, true, [2]uint16{31, 111}
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true, Stderr: true})
		b.start()
		c.until("31 111")
		if err := b.keeper.Resize(b.ctx(), 42, 99); err != nil {
			t.Fatal(err)
		}
		c.write("line\n")
		if rest := c.all(); !strings.Contains(rest, "42 99\r\ngot line\r\n") {
			t.Errorf("after resize and input: %q", rest)
		}
		b.wait(5)
		if got := b.log("stdout"); !strings.HasSuffix(got, "got line\r\n") {
			t.Errorf("log: %q", got)
		}
		b.release()
	})
}

func TestDetachKeys(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`stty raw -echo; echo ready; while :; do head -c 2 | cat; echo .; done`)...)
		b.cfg.TTY, b.cfg.OpenStdin = true, true
		b.create(launcher(t, 0))
		b.start()
		keys := []byte{16, 17}
		c := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true, DetachKeys: keys, Logs: true})
		c.until("ready")
		c.write("\x10") // may begin the sequence
		c.write("x")    // does not
		c.until("\x10x.")
		c.write("\x10")
		c.write("\x11")
		c.all()
		select {
		case e := <-b.keeper.Detached():
			if e.ExecID != "" {
				t.Errorf("detached from %+v", e)
			}
		case <-time.After(testutil.Patience(5 * time.Second)):
			t.Error("no detach event")
		}
		again := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true, DetachKeys: keys})
		again.write("yz")
		again.until("yz.")
	})
}

// blob is 2 MB of lines of many lengths, with characters of all widths.
func blob() string {
	var s strings.Builder
	for i := 0; s.Len() < 2<<20; i++ {
		s.WriteString(strings.Repeat("aé→🙂<&>\"\\\t", i%40))
		if i%50 == 0 {
			s.WriteString(strings.Repeat("→long", 5000))
		}
		s.WriteByte('\n')
	}
	return s.String()
}

func TestLargeOutputIsExact(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, "/bin/busybox", "cat", "/blob")
		want := blob()
		if err := os.WriteFile(filepath.Join(b.cfg.Rootfs.Lower[0], "blob"), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		b.create(launcher(t, 0))
		raw := b.attach(supervise.AttachOptions{Stdout: true})
		framed := b.attach(supervise.AttachOptions{Stdout: true, Multiplexed: true})
		got := make(chan string, 2)
		go func() { got <- raw.all() }()
		go func() { out, _ := demux(t, framed.all()); got <- out }()
		b.start()
		b.wait(0)
		for range 2 {
			if s := <-got; sha256.Sum256([]byte(s)) != sha256.Sum256([]byte(want)) {
				t.Errorf("an attached client got %d bytes of %d", len(s), len(want))
			}
		}
		if s := b.log("stdout"); s != want {
			t.Errorf("the log has %d bytes of %d", len(s), len(want))
		}
		// after the end the whole can still be had
		late := b.attach(supervise.AttachOptions{Stdout: true, Logs: true})
		if s := late.all(); s != want {
			t.Errorf("a late client got %d bytes of %d", len(s), len(want))
		}
		b.release()
	})
}

func TestReplayJoinsLiveOutput(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		for name, log := range map[string]supervise.Log{"one file": {}, "rotated": {MaxSize: 64 << 10, MaxFiles: 1000}, "not waited for": {Buffer: 10 << 20}} {
			t.Run(name, func(t *testing.T) { replayJoins(t, rt, log) })
		}
	})
}

func replayJoins(t *testing.T, rt supervise.Runtime, log supervise.Log) {
	b := newBox(t, rt, shell(`seq 1 20000; printf 'half '; read x; echo line; seq 1 20000`)...)
	b.cfg.OpenStdin = true
	log.Driver, log.Path = b.cfg.Log.Driver, b.cfg.Log.Path
	b.cfg.Log = log
	b.create(launcher(t, 0))
	b.start()
	got := make(chan string)
	read := func() { // at once: a client that does not read holds the others up
		c := b.attach(supervise.AttachOptions{Stdout: true, Logs: true})
		go func() { got <- c.all() }()
	}
	for range 5 { // in the middle of the output
		read()
	}
	in := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true, Logs: true})
	in.until("half ")
	read()
	in.write("go\n")
	go in.all()
	b.wait(0)
	want := b.log("stdout")
	for range 6 {
		if s := <-got; s != want {
			t.Errorf("a client got %d bytes of %d", len(s), len(want))
		}
	}
	if log.MaxSize > 0 {
		select {
		case <-b.keeper.Rotated():
		default:
			t.Error("nothing told of the rotation")
		}
	}
	b.release()
}

// With a bound on what may wait the container does not wait for the disk, and
// what it lost is told.
func TestLogThatIsNotWaitedFor(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`seq 1 100000; echo end`)...)
		// a pipe that nobody reads from stands for a disk that does not answer
		if err := unix.Mkfifo(b.cfg.Log.Path, 0o600); err != nil {
			t.Fatal(err)
		}
		disk, err := os.OpenFile(b.cfg.Log.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		b.cfg.Log.Buffer = 64 << 10
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdout: true})
		b.start()
		if got := c.until("end\n"); !strings.Contains(got, "100000\n") {
			t.Errorf("the client got %d bytes", len(got))
		}
		var stored atomic.Int64
		whole := regexp.MustCompile(`^{"log":"(\d{1,5}|100000|end)(\\n)?",`)
		go func() { // the disk comes back
			for lines := bufio.NewScanner(disk); lines.Scan(); stored.Add(1) {
				if text := lines.Text(); !whole.MatchString(text) {
					t.Errorf("a line was made of the ends of two: %s", text)
				}
			}
		}()
		e := b.wait(0)
		b.release()
		testutil.Eventually(t, 5*time.Second, "every line is stored or counted as lost", func() bool {
			return e.LogDropped > 0 && e.LogDropped+stored.Load() == 100001
		})
		if !strings.Contains(e.LogError, "non-blocking") {
			t.Errorf("exit %+v", e)
		}
	})
}

func TestLogsWithoutStream(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`echo one; sleep 100`)...)
		b.create(launcher(t, 0))
		b.start()
		testutil.Eventually(t, 5*time.Second, "the log has a line", func() bool { return b.log("stdout") != "" })
		c := b.attach(supervise.AttachOptions{Stdout: true, Logs: true, NoStream: true})
		if got := c.all(); got != "one\n" {
			t.Errorf("got %q", got)
		}
	})
}

// A client misses nothing from the moment on that it is told that it is attached,
// and gets nothing before.
func TestHeldAttach(t *testing.T) {
	b := newBox(t, supervise.Runtime{}, shell(`read x; echo "$x"; read x; echo "$x"`)...)
	b.cfg.OpenStdin = true
	b.create(launcher(t, 0))
	b.start()
	in := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far")
	defer far.Close()
	if err := b.keeper.AttachHeld(b.ctx(), supervise.AttachOptions{Stdout: true}, near, func() error {
		in.write("one\n")
		in.until("one\n") // by another client, so it is here, too
		_, err := near.WriteString("head\n")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	near.Close()
	in.write("two\n")
	b.wait(0)
	b.release()
	if got, err := io.ReadAll(far); err != nil || string(got) != "head\none\ntwo\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A client that stops reading holds the process back, loses nothing, keeps
// nobody from attaching, and does not keep the exit.
func TestFrozenClient(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`seq 1 100000 & wait; echo end`)...)
		b.create(launcher(t, 0))
		frozen := b.attach(supervise.AttachOptions{Stdout: true})
		b.start()
		ctx, cancel := context.WithTimeout(b.ctx(), 300*time.Millisecond)
		defer cancel()
		if _, err := b.keeper.Wait(ctx); err == nil {
			t.Fatal("588895 bytes were written and nobody read them")
		}
		late := b.attach(supervise.AttachOptions{Stdout: true, Logs: true})
		go io.Copy(io.Discard, late)
		if err := b.keeper.Kill(b.ctx()); err != nil {
			t.Fatal(err)
		}
		b.wait(128 + 9)
		b.release()
		if got, want := frozen.all(), b.log("stdout"); got != want {
			t.Errorf("the client got %d bytes, the log has %d", len(got), len(want))
		}
	})
}

func TestVanishedClient(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`seq 1 200000; echo end`)...)
		b.create(launcher(t, 0))
		gone := b.attach(supervise.AttachOptions{Stdout: true})
		b.start()
		gone.until("1000")
		gone.Close()
		b.wait(0)
		if got := b.log("stdout"); !strings.HasSuffix(got, "200000\nend\n") {
			t.Errorf("the log ends with %q", got[max(0, len(got)-20):])
		}
		b.release()
	})
}

// A full disk costs records, and neither blocks nor ends the container.
func TestLogDiskFull(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`seq 1 100000; echo end`)...)
		// A device that is always full stands for the disk: what the process
		// sees of a mount made here depends on the host's propagation.
		b.cfg.Log.Path = "/dev/full"
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdout: true})
		b.start()
		if got := c.all(); !strings.HasSuffix(got, "end\n") {
			t.Errorf("the client got %d bytes", len(got))
		}
		if e := b.wait(0); e.LogDropped != 100001 || !strings.Contains(e.LogError, "no space left") || e.Error != "" {
			t.Errorf("exit: %+v", e)
		}
		b.release()
	})
}

// A process outside the pid namespace may hold the pipe when the init ends.
func TestPipeHeldByAnother(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`sleep 30 & echo $!; exit 4`)...)
		ns := b.spec.Linux.Namespaces[1:]
		b.spec.Linux.Namespaces = ns // no pid namespace
		b.spec.Mounts[0].Source, b.spec.Mounts[0].Type, b.spec.Mounts[0].Options = "/proc", "bind", []string{"rbind"}
		b.create(launcher(t, 0))
		b.start()
		b.wait(4)
		pid := strings.TrimSpace(b.log("stdout"))
		b.release()
		testutil.Eventually(t, 5*time.Second, "the left process is killed with its cgroup", func() bool {
			_, err := os.Stat("/proc/" + pid)
			return err != nil
		})
	})
}

func TestSupervisorIgnoresSignals(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`trap 'exit 9' TERM; echo ready; read x; exit 6`)...)
		b.cfg.OpenStdin = true
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdin: true, Stdout: true})
		b.start()
		c.until("ready")
		pid := parent(t, b.keeper.Pid())
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1} {
			if err := unix.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
		c.write("\n")
		b.wait(6)
		b.release()
	})
}
