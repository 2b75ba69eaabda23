package ocirun

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/internal/testutil"
)

// bundle makes a bundle whose root holds busybox and returns its directory with
// a specification to be changed.
func bundle(t testing.TB, args ...string) (string, *specs.Spec) {
	t.Helper()
	testutil.RequireRoot(t)
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) { // user namespaces must pass
		_ = os.Chmod(d, 0o755)
	}
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "root", "mnt"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox (Debian's busybox-static)")
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin/busybox"), box, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cut", "head", "cat", "true", "false", "sleep", "id", "ls", "mount", "hostname", "echo", "grep",
		"readlink", "stty", "tty", "touch", "mkdir", "uptime", "kill", "ps", "env", "pwd", "stat", "dd", "ulimit"} {
		_ = os.Symlink("busybox", filepath.Join(rootfs, "bin", name))
	}
	_ = os.WriteFile(filepath.Join(rootfs, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"), 0o644)
	return dir, Default(rootfs, args...)
}

// containerID is unique per test and names the test.
func containerID(t testing.TB) string {
	return "tare-test-" + strings.NewReplacer("/", "-", "#", "-", " ", "-", ":", "-").Replace(t.Name()) + "-" + itoa(os.Getpid())
}

func itoa(n int) string {
	return strings.TrimSpace(strings.Replace(string(appendInt(nil, n)), "\n", "", -1))
}

func appendInt(b []byte, n int) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

// run creates, starts and waits for a container and returns its output.
func run(t testing.TB, dir string, s *specs.Spec) (string, ExitStatus) {
	t.Helper()
	out, status, err := tryRun(t, dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return out, status
}

func tryRun(t testing.TB, dir string, s *specs.Spec) (string, ExitStatus, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := Create(context.Background(), Options{Bundle: dir, Spec: s, ID: containerID(t), Stdio: [3]*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		return "", ExitStatus{}, err
	}
	defer func() {
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, _ = io.Copy(&out, r)
	status, err := c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), status, nil
}

func shell(t testing.TB, script string) (string, *specs.Spec) { return bundle(t, "sh", "-c", script) }

func TestRun(t *testing.T) {
	dir, s := shell(t, "echo hello; hostname; id -u; cat /proc/1/comm; exit 3")
	s.Hostname = "box"
	out, status := run(t, dir, s)
	if out != "hello\nbox\n0\nsh\n" || status.Code() != 3 {
		t.Fatalf("got %q, code %d", out, status.Code())
	}
}

// TestMain runs the tests in both forms of init: executed from a memfd, and in
// the memory of this process as when that runs from a sealed file.
func TestMain(m *testing.M) {
	if os.Getenv("TARE_TEST_HUNT") != "" {
		hunt()
		return
	}
	if r, w, err := os.Pipe(); err == nil { // the Go runtime's own descriptors come with the first
		r.Close()
		w.Close()
	}
	code := m.Run()
	if code == 0 && flag.Lookup("test.bench").Value.String() == "" {
		sealed = func() bool { return true }
		code = m.Run()
	}
	os.Exit(code)
}
