package supervise_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/supervise"
	_ "github.com/tarehq/tare/supervise/keeper" // a change there makes go test run these tests anew
)

// program is the real tare-supervise, built once.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helper()
		return
	}
	// The pool is dropped when something is mounted on the host, as other tests do.
	os.Exit(testutil.OwnMounts(prepared{m}))
}

// prepared are the tests, with the program that they need built before.
type prepared struct{ *testing.M }

func (m prepared) Run() int {
	dir, err := os.MkdirTemp("", "supervise-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "tare-supervise")
	if built := os.Getenv("TARE_TEST_BIN"); built != "" { // where building takes too long
		program = filepath.Join(built, "tare-supervise")
		return m.M.Run()
	}
	build := exec.Command("go", "build", "-o", program, "-trimpath", "-ldflags=-s -w", "../cmd/tare-supervise")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building tare-supervise: %v\n%s", err, out)
		return 1
	}
	return m.M.Run()
}

// eachRuntime runs the test with each runtime there is.
func eachRuntime(t *testing.T, test func(t *testing.T, rt supervise.Runtime)) {
	t.Helper()
	testutil.RequireRoot(t)
	t.Run("in-process", func(t *testing.T) { test(t, supervise.Runtime{}) })
	t.Run("runc", func(t *testing.T) {
		path, err := exec.LookPath("runc")
		if err != nil {
			t.Skip("runc is not installed")
		}
		test(t, supervise.Runtime{Path: path})
	})
}

// box is one container under test.
type box struct {
	t      testing.TB
	cfg    supervise.Config
	spec   *specs.Spec
	keeper *supervise.Keeper
}

// shell is busybox's sh with a script.
func shell(script string) []string { return []string{"/bin/busybox", "sh", "-c", script} }

// newBox prepares the directory of a container that runs args.
func newBox(t testing.TB, rt supervise.Runtime, args ...string) *box {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "c")
	for _, d := range []string{"c/rootfs", "lower/bin", "lower/proc", "lower/dev", "lower/sys", "lower/etc", "lower/tmp", "top/etc", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link("/bin/busybox", filepath.Join(root, "lower/bin/busybox")); err != nil {
		copyFile(t, "/bin/busybox", filepath.Join(root, "lower/bin/busybox"))
	}
	for _, applet := range strings.Fields("sh cat echo true sleep stty seq kill dd printf head env") {
		if err := os.Symlink("busybox", filepath.Join(root, "lower/bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	b := &box{t: t, cfg: supervise.Config{
		ID: id, Dir: dir, Runtime: rt,
		Rootfs: supervise.Rootfs{
			Lower: []string{filepath.Join(root, "top"), filepath.Join(root, "lower")},
			Upper: filepath.Join(root, "upper"), Work: filepath.Join(root, "work"),
		},
		Log: supervise.Log{Driver: "json-file", Path: filepath.Join(root, "log.json")},
	}}
	b.spec = &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		Root:    &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/tare-test-" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}},
		},
	}
	caps := []string{"CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID"}
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	return b
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func launcher(t testing.TB, pool int) *supervise.Launcher {
	t.Helper()
	l, err := supervise.NewLauncher(program, pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (b *box) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(30*time.Second))
	b.t.Cleanup(cancel)
	return ctx
}

// writeConfig writes config.json.
func (b *box) writeConfig() {
	b.t.Helper()
	b.spec.Process.Terminal = b.cfg.TTY
	data, err := json.Marshal(b.spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.cfg.Dir, "config.json"), data, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// create makes the container, and sees to it that it is gone after the test.
func (b *box) create(l *supervise.Launcher) {
	b.t.Helper()
	b.writeConfig()
	k, err := l.Create(b.ctx(), b.cfg)
	if err != nil {
		b.t.Fatalf("create: %v", err)
	}
	b.keeper = k
	init := k.Pid()
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(10*time.Second))
		defer cancel()
		k := b.keeper
		if k.Kill(ctx) == nil {
			k.Wait(ctx)
			k.Release(ctx)
		}
		k.Close()
		b.nothingLeft(init)
	})
}

func (b *box) start() {
	b.t.Helper()
	if _, _, err := b.keeper.Start(b.ctx()); err != nil {
		b.t.Fatalf("start: %v", err)
	}
}

// wait waits for the exit and compares its code.
func (b *box) wait(code int) supervise.Exit {
	b.t.Helper()
	e, err := b.keeper.Wait(b.ctx())
	if err != nil {
		b.t.Fatalf("wait: %v", err)
	}
	if e.Code != code {
		b.t.Errorf("exit code %d, want %d (%+v)", e.Code, code, e)
	}
	return e
}

func (b *box) release() {
	b.t.Helper()
	if err := b.keeper.Release(b.ctx()); err != nil {
		b.t.Fatalf("release: %v", err)
	}
}

// log returns what the log holds of a stream.
func (b *box) log(stream string) string {
	b.t.Helper()
	var out []byte
	err := logs.Read(b.ctx(), b.cfg.Log.Path, logs.ReadOptions{Tail: -1}, func(e logs.Entry) error {
		if e.Stream == stream {
			out = append(out, e.Line...)
		}
		return nil
	})
	if err != nil {
		b.t.Fatalf("log: %v", err)
	}
	return string(out)
}

// nothingLeft checks that process, mount and cgroups are gone.
func (b *box) nothingLeft(init int) {
	b.t.Helper()
	testutil.Eventually(b.t, 5*time.Second, "the init is gone", func() bool {
		return unix.Kill(init, 0) == unix.ESRCH
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(b.cfg.Dir)) {
		b.t.Error("a mount is left on the host")
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + b.spec.Linux.CgroupsPath)
	if len(left) > 0 {
		b.t.Errorf("cgroups are left: %v", left)
	}
	if _, err := supervise.Connect(b.ctx(), b.cfg.Dir); err == nil {
		b.t.Error("the supervising process is left")
	}
}

// client is the far end of an attached socket.
type client struct {
	t testing.TB
	*net.UnixConn
}

// socketPair returns a client's end, and the end to hand over.
func socketPair(t testing.TB) (*client, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near := os.NewFile(uintptr(fds[0]), "client")
	defer near.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testutil.Patience(20 * time.Second)))
	return &client{t, conn.(*net.UnixConn)}, os.NewFile(uintptr(fds[1]), "server")
}

func (b *box) attach(o supervise.AttachOptions) *client {
	b.t.Helper()
	c, theirs := socketPair(b.t)
	defer theirs.Close()
	if err := b.keeper.Attach(b.ctx(), o, theirs); err != nil {
		b.t.Fatalf("attach: %v", err)
	}
	return c
}

// all reads to the end.
func (c *client) all() string {
	c.t.Helper()
	data, err := io.ReadAll(c)
	if err != nil {
		c.t.Errorf("reading the attached socket: %v (after %d bytes)", err, len(data))
	}
	return string(data)
}

// until reads until what was seen.
func (c *client) until(what string) string {
	c.t.Helper()
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(what)) {
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			c.t.Fatalf("waiting for %q: %v; %d bytes came, the last %q", what, err, len(got), got[max(0, len(got)-100):])
		}
	}
	return string(got)
}

func (c *client) write(s string) {
	c.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.t.Fatalf("writing to the attached socket: %v", err)
	}
}

// demux takes Docker's frames apart.
func demux(t *testing.T, data string) (stdout, stderr string) {
	t.Helper()
	for len(data) > 0 {
		if len(data) < 8 {
			t.Fatalf("half a frame header is left: %q", data)
		}
		n := int(data[4])<<24 | int(data[5])<<16 | int(data[6])<<8 | int(data[7])
		if len(data) < 8+n {
			t.Fatalf("half a frame is left: %d of %d bytes", len(data)-8, n)
		}
		switch data[0] {
		case 1:
			stdout += data[8 : 8+n]
		case 2:
			stderr += data[8 : 8+n]
		default:
			t.Fatalf("a frame of stream %d", data[0])
		}
		data = data[8+n:]
	}
	return stdout, stderr
}

func specsMemory(limit int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
}

// helperEnv names a container's configuration; the test binary then creates
// that container and starts it, prints "up" and waits to be killed: a daemon.
const helperEnv = "SUPERVISE_TEST_HELPER"

func helper() {
	err := func() error {
		var in struct {
			Program string
			Config  supervise.Config
		}
		if err := json.Unmarshal([]byte(os.Getenv(helperEnv)), &in); err != nil {
			return err
		}
		l, err := supervise.NewLauncher(in.Program, 1, nil)
		if err != nil {
			return err
		}
		k, err := l.Create(context.Background(), in.Config)
		if err != nil {
			return err
		}
		_, _, err = k.Start(context.Background())
		return err
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("up")
	select {}
}

func bind(from, to string) specs.Mount {
	return specs.Mount{Destination: to, Source: from, Type: "bind", Options: []string{"rbind"}}
}
