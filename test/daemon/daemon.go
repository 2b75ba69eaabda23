// Package daemon runs the real programs for tests: a tared of its own for
// each test, with roots, bridge, socket and cgroup parent that carry the test's
// name, and a look at the machine afterwards for what it left behind.
package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
)

// Daemon is one tared.
type Daemon struct {
	Dir    string // holds data/, exec/, tare.sock and tared.log
	Host   string // for TARE_HOST and DOCKER_HOST
	Bridge string
	Cgroup string // parent of its containers' cgroups

	tb    testing.TB
	bin   string
	flags []string
	cmd   *exec.Cmd
	ended chan struct{}
	atEnd []func() error

	passed []*os.File
	covers [][2]string
}

var (
	buildOnce sync.Once
	binDir    string
	errBuild  error
	serial    atomic.Int32
)

// Root is the repository's root directory.
func Root() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
}

// Bin builds the programs once per test process and returns their directory.
// TARE_TEST_BIN names one that has them already, and the tar of busybox, for a
// machine that is too slow to build.
func Bin(t testing.TB) string {
	t.Helper()
	if built := os.Getenv("TARE_TEST_BIN"); built != "" {
		return built
	}
	buildOnce.Do(func() {
		if binDir, errBuild = os.MkdirTemp("", "tare-test-bin"); errBuild == nil {
			errBuild = Build(Root(), binDir)
		}
	})
	if errBuild != nil {
		t.Fatal(errBuild)
	}
	return binDir
}

// Clean removes what Bin built; for TestMain.
func Clean() { os.RemoveAll(binDir) }

// Build builds the programs of a source tree into dir.
func Build(source, dir string) error {
	// A time as the Makefile gives, which the Go command may not have where it does not look at Git.
	when := "-X main.buildTime=" + time.Now().UTC().Format(time.RFC3339)
	cmd := exec.Command("go", "build", "-ldflags", when, "-o", dir+"/", "./cmd/...")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", source, err, out)
	}
	return nil
}

// New prepares a daemon that is not started yet. At the end of the test its
// containers are removed, it is stopped, and the machine is checked for what
// is left.
func New(t testing.TB, flags ...string) *Daemon {
	t.Helper()
	testutil.RequireRoot(t)
	n := int(serial.Add(1))
	dir, err := os.MkdirTemp("", "tare-"+strings.NewReplacer("/", "-", " ", "-").Replace(t.Name())+"-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/daemon.json", []byte("{}\n"), 0o600); err != nil { // not the machine's own
		t.Fatal(err)
	}
	unique := os.Getpid()*64 + n
	d := &Daemon{
		Dir:    dir,
		Host:   "unix://" + dir + "/tare.sock",
		Bridge: fmt.Sprintf("tt%x", unique&0xffffff),
		Cgroup: "/tare-test-" + filepath.Base(dir),
		tb:     t,
		bin:    Bin(t),
	}
	d.flags = append([]string{"-H", d.Host, "--data-root", dir + "/data", "--exec-root", dir + "/exec",
		"--pidfile", dir + "/tared.pid", "--config-file", dir + "/daemon.json", "--plugin-dir", dir + "/plugins", "--bridge", d.Bridge,
		"--bip", fmt.Sprintf("10.%d.%d.1/24", 64+unique>>8&63, unique&255), "--cgroup-parent", d.Cgroup}, flags...)
	t.Cleanup(func() { d.finish(t) })
	return d
}

// Start is New, and the daemon answers when it returns.
func Start(t testing.TB, flags ...string) *Daemon {
	t.Helper()
	d := New(t, flags...)
	d.Up(t)
	return d
}

// AtEnd registers what is done when the daemon has ended, before the machine is
// checked for leftovers.
func (d *Daemon) AtEnd(f func() error) { d.atEnd = append(d.atEnd, f) }

// Use takes the programs from another directory from now on.
func (d *Daemon) Use(bin string) { d.bin = bin }

// Add gives the daemon more flags from its next start on.
func (d *Daemon) Add(flags ...string) { d.flags = append(d.flags, flags...) }

// Drop takes a flag, with its value, from the daemon, which may be of a version
// that does not know it.
func (d *Daemon) Drop(flag string) {
	if i := slices.Index(d.flags, flag); i >= 0 {
		d.flags = slices.Delete(d.flags, i, i+2)
	}
}

// Activate passes listening sockets to the daemon, as systemd does.
func (d *Daemon) Activate(sockets ...*os.File) { d.passed = sockets }

// Cover has the daemon see another file at a path of the machine, from its next start
// on.
func (d *Daemon) Cover(path, by string) { d.covers = append(d.covers, [2]string{by, path}) }

// covering makes the command one in a mount namespace of its own.
func (d *Daemon) covering(cmd *exec.Cmd) *exec.Cmd {
	script, args := "set -e; ", []string{}
	for i, c := range d.covers {
		script += fmt.Sprintf(`mount --bind "$%d" "$%d"; `, 2*i+1, 2*i+2)
		args = append(args, c[0], c[1])
	}
	script += fmt.Sprintf(`shift %d; exec "$@"`, len(args))
	return exec.Command("unshare", slices.Concat([]string{"-m", "sh", "-c", script, "sh"}, args, cmd.Args)...)
}

// Program is the path of one of the programs.
func (d *Daemon) Program(name string) string { return filepath.Join(d.bin, name) }

// Begin starts the daemon and does not wait.
func (d *Daemon) Begin(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(d.Dir+"/tared.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(d.Program("tared"), d.flags...)
	if len(d.passed) > 0 { // sd_listen_fds(3): the process is to find its own number there
		d.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, d.Program("tared")}, d.flags...)...)
		d.cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(d.passed)))
		d.cmd.ExtraFiles = d.passed
	}
	if len(d.covers) > 0 {
		d.cmd = d.covering(d.cmd)
	}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(d.cmd, d.ended)
}

// Up starts the daemon and waits until it answers.
func (d *Daemon) Up(t testing.TB) {
	t.Helper()
	d.Begin(t)
	deadline := time.Now().Add(testutil.Patience(20 * time.Second))
	for {
		if _, err := d.Try("version"); err == nil {
			return
		}
		select {
		case <-d.ended:
			t.Fatalf("tared ended:\n%s", d.Log())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("tared does not answer:\n%s", d.Log())
		}
	}
}

// TB is the test that the daemon belongs to.
func (d *Daemon) TB() testing.TB { return d.tb }

// Log is what the daemon has said.
func (d *Daemon) Log() string {
	data, _ := os.ReadFile(d.Dir + "/tared.log")
	return string(data)
}

// Pid is the daemon's process ID.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Signal sends the daemon a signal and waits for its end.
func (d *Daemon) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(sig)
	select {
	case <-d.ended:
		d.cmd = nil
	case <-time.After(testutil.Patience(20 * time.Second)):
		t.Fatalf("tared survives %v:\n%s", sig, d.Log())
	}
}

// Env is the environment for a client of the daemon.
func (d *Daemon) Env() []string {
	return append(os.Environ(), "TARE_HOST="+d.Host, "DOCKER_HOST="+d.Host, "DOCKER_CONFIG="+d.Dir+"/client",
		"PATH="+d.bin+":"+os.Getenv("PATH"))
}

// Command is a client of the daemon, with a deadline of two minutes.
func (d *Daemon) Command(t testing.TB, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	if name == "tare" {
		name = d.Program(name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = d.Env()
	return cmd
}

// Try runs tare and returns its output, without the last newline.
func (d *Daemon) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.Program("tare"), args...)
	cmd.Env = d.Env()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return strings.TrimSuffix(out.String(), "\n"), fmt.Errorf("tare %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// Tare runs tare, which must succeed.
func (d *Daemon) Tare(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.Try(args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, d.Log())
	}
	return out
}

// ImportBusybox gives the daemon the image "busybox".
func (d *Daemon) ImportBusybox(t testing.TB) {
	t.Helper()
	d.Tare(t, "import", "--change", `CMD ["sh"]`, Busybox(t), "busybox")
}

var (
	busyboxOnce sync.Once
	busyboxTar  string
	errBusybox  error
)

// Busybox is the path of a root file system of Debian's static busybox.
func Busybox(t testing.TB) string {
	t.Helper()
	Bin(t) // whose directory holds it
	busyboxOnce.Do(func() {
		if built := os.Getenv("TARE_TEST_BIN"); built != "" {
			busyboxTar = filepath.Join(built, "busybox.tar")
			return
		}
		var out []byte
		if out, errBusybox = exec.Command(filepath.Join(Root(), "scripts/busybox-tar")).Output(); errBusybox == nil {
			busyboxTar = filepath.Join(binDir, "busybox.tar")
			errBusybox = os.WriteFile(busyboxTar, out, 0o644)
		}
	})
	if errBusybox != nil {
		t.Fatal(errBusybox)
	}
	return busyboxTar
}
