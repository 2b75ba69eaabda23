package supervise_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// frozen tells what the container's control group says, of whichever version
// it is.
func (b *box) frozen() bool {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 10 || !strings.Contains(f[len(f)-1], "freezer") && f[len(f)-3] != "cgroup2" {
			continue
		}
		for name, word := range map[string]string{"/freezer.state": "FROZEN", "/cgroup.freeze": "1"} {
			if state, err := os.ReadFile(f[4] + b.spec.Linux.CgroupsPath + name); err == nil && strings.TrimSpace(string(state)) == word {
				return true
			}
		}
	}
	return false
}

func TestFreeze(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`while true; do echo tick; sleep 0.01; done`)...)
		b.create(launcher(t, 0))
		if err := b.keeper.Freeze(b.ctx()); !errors.Is(err, fault.Conflict) {
			t.Errorf("before the start: %v", err)
		}
		b.start()
		if err := b.keeper.Thaw(b.ctx()); !errors.Is(err, fault.Conflict) {
			t.Errorf("a thaw without a freeze: %v", err)
		}
		for range 2 {
			if err := b.keeper.Freeze(b.ctx()); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.keeper.Thaw(b.ctx()); err != nil || !b.frozen() {
			t.Errorf("after one of two thaws: frozen %v, %v", b.frozen(), err)
		}
		if err := b.keeper.Thaw(b.ctx()); err != nil || b.frozen() {
			t.Errorf("after both: frozen %v, %v", b.frozen(), err)
		}
		if err := b.keeper.Freeze(b.ctx()); err != nil || !b.frozen() {
			t.Fatalf("frozen %v, %v", b.frozen(), err)
		}
		b.reconnect() // as of a daemon that died
		testutil.Eventually(t, 10*time.Second, "the container goes on", func() bool { return !b.frozen() })
	})
}

// What is killed ends though it stands still, and may be thawed afterwards.
func TestKillOfFrozen(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`while true; do sleep 0.01; done`)...)
		b.create(launcher(t, 0))
		b.start()
		if err := b.keeper.Freeze(b.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := b.keeper.Signal(b.ctx(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.wait(128 + int(unix.SIGKILL))
		if err := b.keeper.Thaw(b.ctx()); err != nil && !errors.Is(err, fault.Conflict) {
			t.Error(err)
		}
	})
}

// A pause outlives the daemon and every freeze, and ends with the container.
func TestPause(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`while true; do sleep 0.01; done`)...)
		b.create(launcher(t, 0))
		if err := b.keeper.Pause(b.ctx()); !errors.Is(err, fault.Conflict) {
			t.Errorf("before the start: %v", err)
		}
		b.start()
		if err := b.keeper.Unpause(b.ctx()); !errors.Is(err, fault.Conflict) {
			t.Errorf("an unpause of what runs: %v", err)
		}
		if err := b.keeper.Pause(b.ctx()); err != nil || !b.frozen() || !b.keeper.Status().Paused {
			t.Fatalf("paused: frozen %v, %+v, %v", b.frozen(), b.keeper.Status(), err)
		}
		if err := b.keeper.Pause(b.ctx()); !errors.Is(err, fault.Conflict) {
			t.Errorf("a second pause: %v", err)
		}
		if err := b.keeper.Freeze(b.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := b.keeper.Thaw(b.ctx()); err != nil || !b.frozen() {
			t.Errorf("after a freeze and its thaw: frozen %v, %v", b.frozen(), err)
		}
		if err := b.keeper.Freeze(b.ctx()); err != nil {
			t.Fatal(err)
		}
		b.reconnect() // as of a daemon that died
		if !b.keeper.Status().Paused || !b.frozen() {
			t.Fatalf("the next daemon: frozen %v, %+v", b.frozen(), b.keeper.Status())
		}
		if err := b.keeper.Freeze(b.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := b.keeper.Unpause(b.ctx()); err != nil || !b.frozen() || b.keeper.Status().Paused {
			t.Errorf("unpaused within a freeze: frozen %v, %v", b.frozen(), err)
		}
		if err := b.keeper.Thaw(b.ctx()); err != nil || b.frozen() {
			t.Errorf("after both: frozen %v, %v", b.frozen(), err)
		}
		if err := b.keeper.Pause(b.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := b.keeper.Signal(b.ctx(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.wait(128 + int(unix.SIGKILL))
	})
}
