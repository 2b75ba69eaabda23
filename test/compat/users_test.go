package compat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestUsersRemapped has Docker's client use a daemon with --userns-remap=default, which
// makes the user dockremap on its first start: on a copy of /etc, so that the machine's
// stays as it is.
func TestUsersRemapped(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t, "--userns-remap", "default")
	etc := filepath.Join(d.Dir, "etc")
	script := `cp -a /etc "$0" && sed -i /^dockremap:/d "$0"/passwd "$0"/group "$0"/shadow "$0"/gshadow "$0"/subuid "$0"/subgid && echo other:300000:65536 | tee -a "$0"/subuid "$0"/subgid`
	if out, err := exec.Command("sh", "-c", script, etc).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.Cover("/etc", etc)
	d.Up(t)
	d.ImportBusybox(t)
	run := func(want string, args ...string) {
		t.Helper()
		if out, err := docker(t, d, "", args...); err != nil || out != want {
			t.Errorf("docker %s: %q, %v, want %q", strings.Join(args, " "), out, err, want)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		if out, err := docker(t, d, "", args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("docker %s: %q, %v, want %q", strings.Join(args, " "), out, err, want)
		}
	}
	var first, count int
	text, _ := os.ReadFile(etc + "/subuid")
	_, line, _ := strings.Cut(string(text), "dockremap:")
	if n, _ := fmt.Sscanf(line, "%d:%d", &first, &count); n != 2 || first < 365536 || count != 65536 {
		t.Errorf("subuid is %s", text)
	}
	where := fmt.Sprintf("0 %d 65536", first)
	if out, err := docker(t, d, "", "info", "--format", "{{.SecurityOptions}}"); err != nil || !strings.Contains(out, "name=userns") {
		t.Errorf("info: %s, %v", out, err)
	}
	const look = "echo $(cat /proc/self/uid_map)"
	run(where, "run", "--rm", "busybox", "sh", "-c", look)
	run("0 0 4294967295", "run", "--rm", "--userns", "host", "busybox", "sh", "-c", look)
	refused("privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode", "run", "--privileged", "busybox", "true")
	refused("cannot share the host's network namespace when user namespaces are enabled", "run", "--network", "host", "busybox", "true")
	refused("cannot share the host PID namespace when user namespaces are enabled", "run", "--pid", "host", "busybox", "true")
	run("", "run", "--rm", "--privileged", "--network", "host", "--pid", "host", "--userns", "host", "busybox", "true")

	// The images and volumes are those of a daemon that remaps nobody.
	run("0:0 7:8", "run", "--rm", "-v", "both:/v", "busybox", "sh", "-c", "touch /v/a /v/b; chown 7:8 /v/b; echo $(stat -c %u:%g /v/a /v/b)")
	run("0:0 7:8", "run", "--rm", "--userns", "host", "-v", "both:/v", "busybox", "sh", "-c", "echo $(stat -c %u:%g /v/a /v/b)")
	run("", "run", "--rm", "-v", "/:/host", "busybox", "sh", "-c", "touch /host/x 2>/dev/null && echo touched; cat /host/etc/shadow 2>/dev/null && echo read; true")

	dir := t.TempDir()
	dockerfile := "FROM busybox\nRUN " + look + " > /map && touch /mine && chown 7:8 /mine\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := docker(t, d, "", "build", "-q", "-t", "built", dir); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	for _, mode := range [][]string{{"--userns", "host"}, nil} {
		args := append(append([]string{"run", "--rm"}, mode...), "built", "sh", "-c", "cat /map; stat -c %u:%g /mine")
		run(where+"\n7:8", args...)
	}

	// What is there stays as it is when the daemon remaps no longer, and another time.
	run(mustDocker(t, d, "run", "-d", "--name", "stays", "--network", "none", "busybox", "sleep", "1000"), "inspect", "-f", "{{.Id}}", "stays")
	d.Signal(t, unix.SIGTERM)
	d.Drop("--userns-remap")
	d.Up(t)
	run(where, "exec", "stays", "sh", "-c", look)
	run("stays", "restart", "-t", "0", "stays")
	run(where, "exec", "stays", "sh", "-c", look)
	run("0 0 4294967295", "run", "--rm", "busybox", "sh", "-c", look)
	run(where, "run", "--rm", "--network", "container:stays", "busybox", "sh", "-c", look)
	if out, err := docker(t, d, "", "info", "--format", "{{.SecurityOptions}}"); err != nil || strings.Contains(out, "userns") {
		t.Errorf("info: %s, %v", out, err)
	}
}

func mustDocker(t *testing.T, d *daemon.Daemon, args ...string) string {
	t.Helper()
	out, err := docker(t, d, "", args...)
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}
