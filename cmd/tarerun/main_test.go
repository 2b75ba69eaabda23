package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/ocirun"
)

// TestMain lets the test binary be tarerun.
func TestMain(m *testing.M) {
	if os.Getenv("TARERUN_TEST_MAIN") == "1" {
		os.Unsetenv("TARERUN_TEST_MAIN")
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// bench is a bundle with a state root of its own.
type bench struct {
	t            *testing.T
	bundle, root string
	id           string
}

func newBench(t *testing.T, args ...string) *bench {
	t.Helper()
	testutil.RequireRoot(t)
	b := &bench{t: t, bundle: t.TempDir(), root: t.TempDir(), id: fmt.Sprintf("tare-test-%s-%d", t.Name(), os.Getpid())}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox (Debian's busybox-static)")
	}
	bin := filepath.Join(b.bundle, "rootfs/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), box, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"sh", "sleep", "true", "cat", "id", "echo", "env", "pwd"} {
		_ = os.Symlink("busybox", filepath.Join(bin, n))
	}
	text, err := json.Marshal(ocirun.Default("rootfs", args...))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.run("delete", "--force", b.id)
		if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + b.id); len(left) > 0 {
			t.Errorf("groups left: %v", left)
		}
		left, _ := os.ReadDir(b.root)
		left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "seccomp:") }) // filters, kept for later ones
		if len(left) > 0 {
			t.Errorf("state left: %v", left)
		}
	})
	return b
}

// run executes tarerun and returns its output and exit code.
func (b *bench) run(args ...string) (string, int) {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", b.root}, args...)...)
	cmd.Env = append(os.Environ(), "TARERUN_TEST_MAIN=1")
	cmd.Dir = b.bundle
	out, err := os.CreateTemp(b.t.TempDir(), "out") // a pipe would be held open by what stays
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	_ = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	return string(text), cmd.ProcessState.ExitCode()
}

func TestRunExitCode(t *testing.T) {
	b := newBench(t, "sh", "-c", "echo out; exit 42")
	if out, code := b.run("run", b.id); out != "out\n" || code != 42 {
		t.Errorf("got %q, code %d", out, code)
	}
	b = newBench(t, "sh", "-c", "kill -9 $$")
	if out, code := b.run("run", b.id); code != 0 && code != 137 {
		t.Errorf("got %q, code %d", out, code)
	}
}

func TestLifecycle(t *testing.T) {
	b := newBench(t, "sleep", "1000")
	pidFile := filepath.Join(b.bundle, "pid")
	must := func(args ...string) string {
		t.Helper()
		out, code := b.run(args...)
		if code != 0 {
			t.Fatalf("%v: %s", args, out)
		}
		return out
	}
	must("create", "--pid-file", pidFile, b.id)
	if out := must("state", b.id); !strings.Contains(out, `"status": "created"`) {
		t.Error(out)
	}
	must("start", b.id)
	if out, code := b.run("start", b.id); code != 1 || !strings.Contains(out, "already running") {
		t.Error(out, code)
	}
	if out := must("list", "-q"); out != b.id+"\n" {
		t.Error(out)
	}
	if out := must("exec", "--cwd", "/bin", "-e", "A=b", "-u", "7:8", b.id, "sh", "-c", "pwd; echo $A; id"); out != "/bin\nb\nuid=7 gid=8\n" {
		t.Errorf("%q", out)
	}
	if out, code := b.run("exec", b.id, "sh", "-c", "exit 9"); code != 9 {
		t.Error(out, code)
	}
	if out, code := b.run("exec", b.id, "nothing"); code != 255 || !strings.Contains(out, `exec: "nothing": executable file not found in $PATH`) {
		t.Error(out, code)
	}
	must("pause", b.id)
	if out := must("state", b.id); !strings.Contains(out, `"status": "paused"`) {
		t.Error(out)
	}
	must("resume", b.id)
	if out, code := b.run("delete", b.id); code != 1 || !strings.Contains(out, "not stopped") {
		t.Error(out, code)
	}
	must("kill", b.id, "KILL")
	testutil.Eventually(t, 10*time.Second, "the container stops", func() bool {
		out, _ := b.run("state", b.id)
		return strings.Contains(out, `"status": "stopped"`)
	})
	must("delete", b.id)
	if out, code := b.run("state", b.id); code != 1 || !strings.Contains(out, "container does not exist") {
		t.Error(out, code)
	}
}

func TestLog(t *testing.T) {
	b := newBench(t, "nothing")
	log := filepath.Join(b.bundle, "log")
	if out, code := b.run("--log", log, "--log-format", "json", "create", b.id); code != 1 {
		t.Error(out, code)
	}
	line, _ := os.ReadFile(log)
	var entry map[string]string
	if err := json.Unmarshal(bytes.TrimSpace(line), &entry); err != nil || entry["level"] != "error" ||
		entry["msg"] != `exec: "nothing": executable file not found in $PATH` {
		t.Errorf("log %s: %v", line, err)
	}
}

// TestOtherConfig: the configuration has another name, for exec too.
func TestOtherConfig(t *testing.T) {
	b := newBench(t, "sleep", "60")
	if err := os.Rename(filepath.Join(b.bundle, "config.json"), filepath.Join(b.bundle, "other.json")); err != nil {
		t.Fatal(err)
	}
	if out, code := b.run("--cgroup-manager", "cgroupfs", "run", "--config", "other.json", "-d", b.id); code != 0 {
		t.Fatal(out, code)
	}
	if out, code := b.run("exec", b.id, "sh", "-c", "echo $TERM"); code != 0 || out != "xterm\n" {
		t.Error(out, code)
	}
}

func TestDebugLog(t *testing.T) {
	b := newBench(t, "true")
	log := filepath.Join(b.bundle, "log")
	if out, code := b.run("--debug", "--log", log, "--log-format", "json", "run", b.id); code != 0 || out != "" {
		t.Error(out, code)
	}
	if text, _ := os.ReadFile(log); !bytes.Contains(text, []byte(`"level":"debug"`)) || !bytes.Contains(text, []byte("pivot_root")) {
		t.Errorf("log %.300s", text)
	}
}

// TestInterrupted: a hook hangs, and somebody is tired of waiting.
func TestInterrupted(t *testing.T) {
	for kind, code := range map[string]int{"createRuntime": 130, "createContainer": 130, "startContainer": 130} {
		b := newBench(t, "true")
		b.id += "-" + kind
		s, err := ocirun.ReadSpec(b.bundle)
		if err != nil {
			t.Fatal(err)
		}
		hook := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", ": > begun; exec /bin/sleep 60"}}}
		s.Hooks = map[string]*specs.Hooks{"createRuntime": {CreateRuntime: hook}, "createContainer": {CreateContainer: hook}, "startContainer": {StartContainer: hook}}[kind]
		text, _ := json.Marshal(s)
		if err := os.WriteFile(b.bundle+"/config.json", text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", "--root", b.root, "run", b.id)
		cmd.Env, cmd.Dir = append(os.Environ(), "TARERUN_TEST_MAIN=1"), b.bundle
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := time.AfterFunc(testutil.Patience(20*time.Second), func() { _ = cmd.Process.Kill() })
		testutil.Eventually(t, 10*time.Second, "the hook runs", func() bool {
			found, _ := filepath.Glob(b.bundle + "/begun")
			below, _ := filepath.Glob(b.bundle + "/rootfs/begun")
			return len(found)+len(below) > 0
		})
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		ended.Stop()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("%s: code %d, %v", kind, got, cmd.ProcessState)
		}
		if left, _ := os.ReadDir(b.root); len(left) > 0 {
			t.Errorf("%s: state left: %v", kind, left)
		}
	}
}

// TestFeatures: the document has no word that the specification does not know, and
// says of each thing that a test here shows that it is there.
func TestFeatures(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = write
	err = runFeatures(&settings{}, nil)
	os.Stdout = stdout
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	var f features.Features
	d := json.NewDecoder(read)
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	l := f.Linux
	for name, on := range map[string]*bool{"v1": l.Cgroup.V1, "v2": l.Cgroup.V2, "systemd": l.Cgroup.Systemd, "systemdUser": l.Cgroup.SystemdUser,
		"rdma": l.Cgroup.Rdma, "apparmor": l.Apparmor.Enabled, "selinux": l.Selinux.Enabled, "intelRdt": l.IntelRdt.Enabled,
		"idmap": l.MountExtensions.IDMap.Enabled, "netDevices": l.NetDevices.Enabled} {
		if on == nil || !*on {
			t.Error(name, "is not told")
		}
	}
	if len(l.Seccomp.Archs) == 0 || len(l.MemoryPolicy.Modes) == 0 || len(f.MountOptions) == 0 {
		t.Errorf("%+v", f)
	}
}

// TestKillCreated: a container that waits for its start ends by the signals that
// would end its program, and not by others.
func TestKillCreated(t *testing.T) {
	for signal, ends := range map[string]bool{"TERM": true, "HUP": true, "INT": true, "QUIT": true, "USR1": false, "CHLD": false} {
		t.Run(signal, func(t *testing.T) {
			b := newBench(t, "sleep", "60")
			b.id = strings.ReplaceAll(b.id, "/", "-")
			b.must("create", b.id)
			b.must("kill", b.id, signal)
			if signal == "HUP" { // from whoever it comes
				pidFile := filepath.Join(b.bundle, "pid")
				b.must("delete", "--force", b.id)
				b.must("create", "--pid-file", pidFile, b.id)
				if err := syscall.Kill(number(pidFile), syscall.SIGHUP); err != nil {
					t.Error(err)
				}
			}
			if !ends {
				b.must("start", b.id)
				return
			}
			testutil.Eventually(t, 10*time.Second, "the container has stopped", func() bool { return strings.Contains(b.must("state", b.id), `"status": "stopped"`) })
		})
	}
}
