package supervise_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// children returns the live processes whose parent is pid, by state.
func children(t testing.TB, pid int) map[int]string {
	t.Helper()
	out := map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if f[1] == strconv.Itoa(pid) {
			p, _ := strconv.Atoi(strings.Split(path, "/")[2])
			out[p] = f[0]
		}
	}
	return out
}

func zombies(t *testing.T, pid int) bool {
	for _, state := range children(t, pid) {
		if state == "Z" {
			return true
		}
	}
	return false
}

// waiting returns the processes of pools that this process has.
func waiting(t testing.TB) []int {
	var out []int
	for pid := range children(t, os.Getpid()) {
		cmd, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if string(cmd) == "tare-supervise\x00" {
			out = append(out, pid)
		}
	}
	return out
}

// starters returns those that this process has.
func starters(t testing.TB) (out []int) {
	for pid := range children(t, os.Getpid()) {
		cmd, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if string(cmd) == "tare-supervise\x00"+supervise.StarterArg+"\x00" {
			out = append(out, pid)
		}
	}
	return out
}

func TestPool(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Eventually(t, 5*time.Second, "other tests' processes are gone", func() bool { return len(waiting(t)) == 0 })
	l := launcher(t, 2)
	full := func() bool { return l.Warm() == 2 }
	testutil.Eventually(t, 5*time.Second, "the pool is full", full)
	exe, err := os.Readlink("/proc/" + strconv.Itoa(waiting(t)[0]) + "/exe")
	if err != nil || !strings.HasPrefix(exe, "/memfd:") {
		t.Errorf("the process runs from %q, %v", exe, err)
	}
	if err := unix.Kill(waiting(t)[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 5*time.Second, "the dead one is collected", func() bool { return len(waiting(t)) == 1 })
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	testutil.Eventually(t, 5*time.Second, "the pool is gone", func() bool { return len(waiting(t)) == 0 })
}

func TestPoolIsRefilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		testutil.Eventually(t, 5*time.Second, "other tests' processes are gone", func() bool { return len(waiting(t)) == 0 })
		l := launcher(t, 1)
		testutil.Eventually(t, 5*time.Second, "the pool is full", func() bool { return l.Warm() == 1 })
		was := waiting(t)[0]
		b := newBox(t, rt, "/bin/busybox", "sleep", "100")
		b.create(l)
		if got := parent(t, b.keeper.Pid()); got != was {
			t.Errorf("the process %d was not taken from the pool, %d was", was, got)
		}
		testutil.Eventually(t, 5*time.Second, "another one waits", func() bool { return l.Warm() == 1 })
	})
}

// A process of the pool has the mounts of the time when it was started; one
// that is outdated is not used.
func TestPoolSeesNewMounts(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		testutil.Eventually(t, 5*time.Second, "other tests' processes are gone", func() bool { return len(waiting(t)) == 0 })
		l := launcher(t, 2)
		full := func() bool { return l.Warm() == 2 }
		testutil.Eventually(t, 5*time.Second, "the pool is full", full)
		b := newBox(t, rt, "/bin/busybox", "cat", "/etc/mounted")
		top := filepath.Join(b.cfg.Rootfs.Lower[0], "etc")
		if err := unix.Mount("late", top, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(top, unix.MNT_DETACH)
		if err := os.WriteFile(filepath.Join(top, "mounted"), []byte("yes"), 0o644); err != nil {
			t.Fatal(err)
		}
		b.cfg.Rootfs.Lower = append([]string{top}, b.cfg.Rootfs.Lower...)
		b.spec.Mounts = append(b.spec.Mounts, bind(top, "/etc"))
		// The pool is refilled after the mount: the new process knows of it, the
		// other one does not.
		l.Drop()
		testutil.Eventually(t, 5*time.Second, "the pool is full again", full)
		b.create(l)
		b.start()
		b.wait(0)
		if got := b.log("stdout"); got != "yes" {
			t.Errorf("the container sees %q", got)
		}
		b.release()
	})
}

func TestUnsupportedLogDriver(t *testing.T) {
	testutil.RequireRoot(t)
	b := newBox(t, supervise.Runtime{}, "/bin/busybox", "true")
	b.cfg.Log.Driver = "syslog"
	b.writeConfig()
	_, err := launcher(t, 0).Create(b.ctx(), b.cfg)
	if err == nil || !strings.Contains(err.Error(), `"syslog"`) {
		t.Errorf("create: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Dir, supervise.SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// Published ports' sockets are held through a restart of the daemon, however
// many they are.
func TestHeldFiles(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, "/bin/busybox", "sleep", "100")
		for range 600 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.SetReadDeadline(time.Now().Add(testutil.Patience(20 * time.Second)))
			b.cfg.Held = append(b.cfg.Held, w)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b.cfg.Held = append(b.cfg.Held, w)
		b.create(launcher(t, 0))
		for _, f := range b.cfg.Held {
			f.Close()
		}
		r.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the file is not held: %v", err)
		}
		b.start()
		// One more while it runs.
		more, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer more.Close()
		if err := b.keeper.Hold(b.ctx(), []*os.File{w}); err != nil {
			t.Fatal(err)
		}
		w.Close()
		more.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := more.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the later file is not held: %v", err)
		}
		b.keeper.Kill(b.ctx())
		b.wait(128 + 9)
		b.release()
		for _, f := range []*os.File{r, more} {
			f.SetReadDeadline(time.Now().Add(testutil.Patience(5 * time.Second)))
			if _, err := f.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a file is still held after the release")
			}
		}
	})
}

// Whoever starts the processes of the pool may die, more than once: they are this
// process's children, there will be more, and another starter.
func TestStarterDies(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Eventually(t, 5*time.Second, "other tests' processes are gone", func() bool { return len(waiting(t)) == 0 })
	l := launcher(t, 2)
	testutil.Eventually(t, 5*time.Second, "the pool is full", func() bool { return l.Warm() == 2 })
	// Of those that died only: who runs the tests may have given this process
	// children too.
	collected := func(pids ...int) bool {
		have := children(t, os.Getpid())
		return !slices.ContainsFunc(pids, func(pid int) bool { return have[pid] != "" })
	}
	for range 2 {
		found, dead := starters(t), waiting(t)
		if len(found) != 1 {
			t.Fatalf("there are %d starters, not one", len(found))
		}
		for _, pid := range append(dead, found[0]) {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		testutil.Eventually(t, 5*time.Second, "the dead are collected", func() bool { return collected(dead...) })
		eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
			b := newBox(t, rt, "/bin/busybox", "true")
			b.create(l)
			b.start()
			b.wait(0)
			b.release()
		})
		testutil.Eventually(t, 5*time.Second, "the pool is full again, and another starts its processes", func() bool {
			return l.Warm() == 2 && len(starters(t)) == 1 && collected(found...)
		})
	}
}

// One that fails at once is replaced ever later, one that lasted at once.
func TestStartersAreReplacedEverLater(t *testing.T) {
	pauses := supervise.Pauses(20)
	if pauses[0] != 0 || pauses[1] <= 0 || pauses[19] != time.Minute || !slices.IsSorted(pauses) {
		t.Errorf("the pauses are %v", pauses)
	}
}

// Nor does one that was stopped stop anything.
func TestStarterStopped(t *testing.T) {
	testutil.RequireRoot(t)
	defer supervise.Hasten(100 * time.Millisecond)()
	for _, again := range []bool{true, false} {
		l := launcher(t, 0)
		testutil.Eventually(t, 5*time.Second, "the starter is executed", func() bool { return len(starters(t)) == 1 })
		if err := unix.Kill(starters(t)[0], unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			var err error
			if again {
				err = l.Start(t.Context())
			}
			ended <- errors.Join(err, l.Close())
		}()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(testutil.Patience(10 * time.Second)):
			unix.Kill(starters(t)[0], unix.SIGCONT)
			t.Errorf("a start (%v) and the end wait for a starter that was stopped", again)
		}
	}
}

// What a starter that failed has started is not heard: it would answer in the
// place of the process that is started then.
func TestStarterFailsTooLate(t *testing.T) {
	testutil.RequireRoot(t)
	l := launcher(t, 0)
	heard, err := l.Pretend()
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan []*os.File, 1)
	go func() {
		_, files, _ := heard.Recv()
		heard.Close()
		sent <- files
	}()
	if err := l.While(t.Context(), func() {
		for _, f := range <-sent {
			if n, _, err := unix.Recvfrom(int(f.Fd()), make([]byte, 1), unix.MSG_DONTWAIT); n != 0 || err != nil {
				t.Errorf("there is still somebody at the other end: %d, %v", n, err)
			}
			f.Close()
		}
	}); err != nil {
		t.Error(err)
	}
}
