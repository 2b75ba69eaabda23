package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/testutil"
)

// Scripts runs the testscript files of a directory, each with a daemon of its
// own that has the image busybox, after more has prepared each one's environment.
func Scripts(t *testing.T, dir string, more ...func(*testscript.Env) error) {
	testutil.RequireRoot(t)
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Condition:           condition,
		Setup: func(env *testscript.Env) error {
			err := setup(env)
			for _, f := range more {
				err = errors.Join(err, f(env))
			}
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon":     daemonCmd,
			"eventually": eventuallyCmd,
		},
	})
}

type key struct{}

// condition is [cgroup2]: the machine has cgroup v2 alone, or [memtrack]: its kernel
// tells which memory is written.
func condition(name string) (bool, error) {
	switch name {
	case "cgroup2":
		return cgroupfs.Unified()
	case "apparmor":
		on, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
		return strings.HasPrefix(string(on), "Y"), nil
	case "memtrack":
		return exec.Command("criu", "check", "--feature", "mem_dirty_track").Run() == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// setup gives the script a daemon with the image busybox, and its clients.
func setup(env *testscript.Env) error {
	t := env.T().(testing.TB)
	d := Start(t)
	d.ImportBusybox(t)
	env.Values[key{}] = d
	for _, kv := range d.Env() {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "TARE_HOST", "DOCKER_HOST", "DOCKER_CONFIG", "PATH":
			env.Setenv(name, value)
		}
	}
	env.Setenv("DATA", d.Dir+"/data")
	env.Setenv("EXEC", d.Dir+"/exec")
	env.Setenv("CGROUP", d.Cgroup)
	env.Setenv("BRIDGE", d.Bridge)
	env.Setenv("SOCKET", d.Dir+"/tare.sock")
	env.Setenv("HOME", env.WorkDir)
	return nil
}

// daemonCmd is "daemon kill|stop|start": kill -9 it, stop it by SIGTERM,
// start it again.
func daemonCmd(ts *testscript.TestScript, neg bool, args []string) {
	d := ts.Value(key{}).(*Daemon)
	t := d.TB()
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon kill|stop|start")
	}
	switch args[0] {
	case "kill":
		d.Signal(t, syscall.SIGKILL)
	case "stop":
		d.Signal(t, syscall.SIGTERM)
	case "start":
		d.Up(t)
	default:
		ts.Fatalf("usage: daemon kill|stop|start")
	}
}

// eventuallyCmd is "[!] eventually COMMAND…": runs a shell command until it
// succeeds (or fails), for at most ten seconds.
func eventuallyCmd(ts *testscript.TestScript, neg bool, args []string) {
	patience := testutil.Patience(20 * time.Second)
	deadline := time.Now().Add(patience)
	for {
		cmd := exec.Command("sh", "-c", strings.Join(args, " "))
		cmd.Dir = ts.Getenv("WORK")
		for _, name := range []string{"TARE_HOST", "DOCKER_HOST", "DOCKER_CONFIG", "PATH", "DATA", "EXEC", "CGROUP", "BRIDGE", "SOCKET", "WORK"} {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
		}
		out, err := cmd.CombinedOutput()
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("still not after %v: %v\n%s", patience, err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
