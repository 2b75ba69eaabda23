package buildkit

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/sid"
)

// rig is a daemon with Docker's client and buildx, as Debian packages them.
type rig struct {
	*daemon.Daemon
	programs string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	return &rig{d, sid.New(t).Programs(t, "docker")}
}

// try runs the client in dir, with variables before its arguments.
func (r *rig) try(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	env := append(os.Environ(), "DOCKER_HOST="+r.Host, "DOCKER_CONFIG="+r.Dir+"/client", "HOME="+r.Dir, "BUILDKIT_PROGRESS=plain")
	for len(args) > 0 && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	cmd := exec.CommandContext(ctx, r.programs+"/docker", args...)
	cmd.Dir, cmd.Env = dir, env
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	return strings.TrimSpace(text.String()), err
}

func (r *rig) docker(t *testing.T, dir string, args ...string) string {
	t.Helper()
	text, err := r.try(t, dir, args...)
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, text)
	}
	return text
}

// directory is one of files that the client's programs see.
func directory(t *testing.T, list map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tare-buildkit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return write(t, dir, list)
}
