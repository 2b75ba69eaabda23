package supervise_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

func TestOutputToLogAndClient(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`echo out; echo err >&2; printf tail; exit 3`)...)
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdout: true, Stderr: true, Multiplexed: true})
		only := b.attach(supervise.AttachOptions{Stderr: true})
		b.start()
		b.wait(3)
		stdout, stderr := demux(t, c.all())
		if stdout != "out\ntail" || stderr != "err\n" {
			t.Errorf("attached: %q, %q", stdout, stderr)
		}
		if got := only.all(); got != "err\n" {
			t.Errorf("attached to stderr alone: %q", got)
		}
		if out, err := b.log("stdout"), b.log("stderr"); out != "out\ntail" || err != "err\n" {
			t.Errorf("log: %q, %q", out, err)
		}
		b.release()
	})
}

func TestExitCodes(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		l := launcher(t, 1)
		for _, c := range []struct {
			script string
			code   int
		}{{"true", 0}, {"exit 42", 42}, {"exit 255", 255}} {
			t.Run(c.script, func(t *testing.T) {
				b := newBox(t, rt, shell(c.script)...)
				b.create(l)
				b.start()
				b.wait(c.code)
				b.release()
			})
		}
		t.Run("killed", func(t *testing.T) {
			b := newBox(t, rt, "/bin/busybox", "sleep", "100")
			b.create(l)
			b.start()
			if err := b.keeper.Signal(b.ctx(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			b.wait(128 + 9)
			if err := b.keeper.Signal(b.ctx(), syscall.SIGKILL); !errors.Is(err, fault.Conflict) {
				t.Errorf("a signal after the end: %v", err)
			}
			b.release()
		})
	})
}

func TestSignalReachesTheInit(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done`)...)
		b.create(launcher(t, 0))
		c := b.attach(supervise.AttachOptions{Stdout: true})
		b.start()
		c.until("ready")
		if err := b.keeper.Signal(b.ctx(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		c.until("caught")
		b.wait(7)
		b.release()
	})
}

func TestKilledBeforeStart(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, "/bin/busybox", "true")
		b.create(launcher(t, 0))
		if s := b.keeper.Status(); s.Phase != supervise.PhaseCreated || s.Pid == 0 {
			t.Errorf("status after create: %+v", s)
		}
		if err := b.keeper.Kill(b.ctx()); err != nil {
			t.Fatal(err)
		}
		b.wait(128 + 9)
		if _, _, err := b.keeper.Start(b.ctx()); !errors.Is(err, fault.Conflict) {
			t.Errorf("start after the end: %v", err)
		}
		b.release()
	})
}

func TestMissingProgram(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, "no-such-program")
		b.writeConfig()
		k, err := launcher(t, 0).Create(b.ctx(), b.cfg)
		if err == nil {
			_, _, err = k.Start(b.ctx())
		}
		if err == nil {
			t.Fatal("it ran")
		}
		if !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), `exec: "no-such-program": executable file not found in $PATH`) {
			t.Errorf("error is %q of kind %v", err, fault.KindOf(err))
		}
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + b.spec.Linux.CgroupsPath); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
		if _, err := os.Stat(filepath.Join(b.cfg.Dir, supervise.SocketName)); err == nil {
			t.Error("the socket is left")
		}
	})
}

func TestChangesGoToUpper(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`echo changed > /etc/file; cat /etc/from-top`)...)
		if err := os.WriteFile(filepath.Join(b.cfg.Rootfs.Lower[0], "etc/from-top"), []byte("top"), 0o644); err != nil {
			t.Fatal(err)
		}
		l := launcher(t, 0)
		b.create(l)
		b.start()
		b.wait(0)
		if got := b.log("stdout"); got != "top" {
			t.Errorf("the topmost layer is not seen: %q", got)
		}
		b.release()
		got, err := os.ReadFile(filepath.Join(b.cfg.Rootfs.Upper, "etc/file"))
		if err != nil || string(got) != "changed\n" {
			t.Errorf("upper holds %q, %v", got, err)
		}
		// a second life in the same directory appends to the log
		b.create(l)
		b.start()
		b.wait(0)
		if got := b.log("stdout"); got != "toptop" {
			t.Errorf("after the second run: %q", got)
		}
		b.release()
	})
}

func TestMemoryExceeded(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`head -c 64000000 /dev/zero | tail -c 63000000 >/dev/null; exec dd if=/dev/zero of=/dev/null bs=60M count=1`)...)
		limit := int64(16 << 20)
		b.spec.Linux.Resources = specsMemory(limit)
		b.create(launcher(t, 0))
		b.start()
		if e := b.wait(128 + 9); !e.OOMKilled {
			t.Errorf("not told as out of memory: %+v", e)
		}
		b.release()
	})
}
