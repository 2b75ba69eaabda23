package compat

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"golang.org/x/sys/unix"
)

// engine is a client's command line for containers that tarerun runs.
type engine struct {
	t    *testing.T
	argv []string
	env  []string
}

// do gives what a command says and its exit code.
func (e *engine) do(args ...string) (string, int) {
	e.t.Helper()
	argv := append(append([]string{}, e.argv...), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), e.env...)
	out, err := os.CreateTemp(e.t.TempDir(), "out") // a pipe would be held open by what stays
	if err != nil {
		e.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			e.t.Fatal(err)
		}
	}
	text, _ := os.ReadFile(out.Name())
	return string(text), cmd.ProcessState.ExitCode()
}

// expect runs a command whose exit code and a part of whose words are known.
func (e *engine) expect(code int, words string, args ...string) {
	e.t.Helper()
	if out, got := e.do(args...); got != code || !strings.Contains(out, words) {
		e.t.Errorf("%v: code %d, %s", args, got, out)
	}
}

// lives takes a container through its life by the words that Docker's and
// Podman's clients share.
func (e *engine) lives(limits ...string) {
	e.t.Helper()
	run := append([]string{"run", "--network", "none"}, limits...)
	name := "tare-test-" + e.t.Name()
	e.expect(5, "hello\n67108864\n", append(run, "--rm", "-m", "64m", "--pids-limit", "20", "box", "sh", "-c", "echo hello; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; exit 5")...)
	e.expect(0, "5\ny\n", append(run, "--rm", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--user", "5", "--tmpfs", "/t", "box", "sh", "-c", "id -u; echo y > /t/y && cat /t/y")...)
	e.expect(127, "executable file not found in $PATH", append(run, "--rm", "box", "nothing")...)
	e.expect(0, "", append(run, "-d", "--name", name, "box", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done")...)
	e.expect(3, "in\n", "exec", name, "sh", "-c", "echo in; exit 3")
	e.expect(0, "", "pause", name)
	e.expect(0, "true", "inspect", "-f", "{{.State.Paused}}", name)
	e.expect(0, "", "unpause", name)
	testutil.Eventually(e.t, 10*time.Second, "the container speaks", func() bool { out, _ := e.do("logs", name); return strings.Contains(out, "up\n") })
	e.expect(0, "", "stop", "-t", "10", name)
	e.expect(0, "9", "inspect", "-f", "{{.State.ExitCode}}", name)
	e.expect(0, "", "start", name)
	e.expect(0, "", "kill", "-s", "KILL", name)
	e.expect(0, "137", "wait", name)
	e.expect(0, "", "rm", name)
}

// busyboxTree unpacks busybox, and gives the archive too.
func busyboxTree(t *testing.T) (tree, tar string) {
	t.Helper()
	tree, tar = t.TempDir(), daemon.Busybox(t)
	if out, err := exec.Command("tar", "-C", tree, "-xf", tar).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return tree, tar
}

// TestPodmanRuns: Podman with tarerun in crun's place.
func TestPodmanRuns(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("needs podman")
	}
	dir := t.TempDir()
	e := &engine{t: t, argv: []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
		"--runtime", filepath.Join(daemon.Bin(t), "tarerun")}}
	_, tar := busyboxTree(t)
	e.expect(0, "", "import", tar, "box")
	t.Cleanup(func() {
		e.do("rm", "-f", "-a")
		removeGroup(t, "tare-test-podman")
	})
	e.lives("--cgroup-parent", "/tare-test-podman", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
}

// removeGroup takes an empty control group away that an engine leaves, as soon as
// the programs that it has beside containers are gone. Where a directory is there
// in which no hierarchy is mounted, Podman has made files.
func removeGroup(t *testing.T, name string) {
	testutil.Eventually(t, 10*time.Second, "the control groups of "+name+" are empty", func() bool {
		found, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		for _, top := range found {
			var kind unix.Statfs_t
			if unix.Statfs(top, &kind) == nil && kind.Type == unix.TMPFS_MAGIC {
				if os.RemoveAll(top) != nil {
					return false
				}
				continue
			}
			var dirs []string
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
					return false
				}
			}
		}
		return true
	})
}

// TestDockerAndContainerdRun: dockerd with tarerun as its runtime, and the
// containerd beside it by ctr with runc's shim.
func TestDockerAndContainerdRun(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	for _, p := range []string{"docker", "dockerd", "containerd", "containerd-shim-runc-v2", "ctr"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("needs " + p)
		}
	}
	dir, tarerun := t.TempDir(), filepath.Join(daemon.Bin(t), "tarerun")
	tree, tar := busyboxTree(t)
	socket := dir + "/s.sock"
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", "unix://"+socket, "--bridge", "none",
		"--iptables=false", "--ip6tables=false", "--storage-driver", "vfs", "--cgroup-parent", "/tare-test-docker", "--add-runtime", "tarerun="+tarerun, "--default-runtime", "tarerun")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		removeGroup(t, "tare-test-docker")
		removeGroup(t, "tare-test-ctr")
		text, _ := os.ReadFile("/proc/self/mountinfo")
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); strings.HasPrefix(f[4], dir) {
				_ = unix.Unmount(f[4], unix.MNT_DETACH)
			}
		}
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("%.4000s", said)
		}
	}()
	e := &engine{t: t, argv: []string{"docker"}, env: []string{"DOCKER_HOST=unix://" + socket, "DOCKER_CONFIG=" + dir}}
	testutil.Eventually(t, 30*time.Second, "dockerd answers", func() bool { _, code := e.do("version"); return code == 0 })
	e.expect(0, "", "import", tar, "box")
	e.lives()
	c := &engine{t: t, argv: []string{"ctr", "-a", dir + "/exec/containerd/containerd.sock", "-n", "tare-test-ctr"}}
	id := "tare-test-ctr-" + strconv.Itoa(os.Getpid())
	run := []string{"run", "--rootfs", "--runc-binary", tarerun, "--memory-limit", "33554432"}
	c.expect(4, "from ctr\n", append(run, "--rm", tree, id, "/bin/sh", "-c", "echo from ctr; exit 4")...)
	c.expect(0, "", append(run, "-d", tree, id, "/bin/sleep", "100")...)
	c.expect(6, "", "task", "exec", "--exec-id", "x", id, "/bin/sh", "-c", "exit 6")
	c.expect(0, "", "task", "pause", id)
	c.expect(0, "PAUSED", "task", "ls")
	c.expect(0, "", "task", "resume", id)
	c.expect(0, "", "task", "kill", "-s", "KILL", id)
	testutil.Eventually(t, 10*time.Second, "the task stops", func() bool { out, _ := c.do("task", "ls"); return strings.Contains(out, "STOPPED") })
	c.do("task", "rm", id) // tells the code of its end
	c.expect(0, "", "container", "rm", id)
}
