package compat

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// asPlugin is a plugin that is nothing but Docker's client.
const asPlugin = `#!/bin/sh
[ "$1" = docker-cli-plugin-metadata ] && { echo '{"SchemaVersion":"0.1.0","Vendor":"Us","ShortDescription":"Docker"}'; exit; }
while [ "${1#-}" != "$1" ]; do shift; done
shift
exec docker "$@"
`

// TestPluginReachesOurs has another engine listen where Docker's does, and plugins
// run that by themselves would talk to it.
func TestPluginReachesOurs(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	run, err := os.MkdirTemp("", "run-") // becomes /run: a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	var asked atomic.Int32
	l, err := net.Listen("unix", run+"/docker.sock")
	if err != nil {
		t.Fatal(err)
	}
	other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "the other engine", 500)
	})}
	go other.Serve(l)
	t.Cleanup(func() { other.Close() })
	home := t.TempDir()
	plugins := filepath.Join(home, ".docker/cli-plugins")
	for _, dir := range []string{run + "/tare", plugins} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"docker-compose", "docker-buildx"} {
		if err := os.WriteFile(filepath.Join(plugins, name), []byte(asPlugin), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(strings.TrimPrefix(d.Host, "unix://"), run+"/tare/tare.sock"); err != nil {
		t.Fatal(err)
	}
	inside := func(line string) (string, int) {
		c := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$0" /run && exec sh -c "$1"`, run, line)
		c.Env = []string{"HOME=" + home, "PATH=" + filepath.Dir(d.Program("tare")) + ":" + os.Getenv("PATH")}
		out, err := c.CombinedOutput()
		if err != nil && c.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), c.ProcessState.ExitCode()
	}
	if out, _ := inside("docker ps"); asked.Load() == 0 {
		t.Fatalf("the other engine is not where Docker's client looks: %s", out)
	}
	asked.Store(0)
	for line, want := range map[string]string{
		"tare compose run --rm busybox echo hello":                             "hello\n",
		"tare buildx run --rm busybox sh -c 'echo out; exit 42'":               "out\n",
		"DOCKER_CONTEXT=default tare compose version -f '{{.Server.Version}}'": d.Tare(t, "version", "-f", "{{.Server.Version}}") + "\n",
	} {
		out, code := inside(line)
		if out != want || (code == 42) != strings.Contains(line, "42") {
			t.Errorf("%s: %d, %q, want %q", line, code, out, want)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("the other engine was asked %d times", asked.Load())
	}
}
