package compat

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
)

// The names under which testcontainers-go's tests ask for images, and the target of
// test/clients/images that stands for each.
var hubImages = map[string][]string{
	"nginx": {"nginx", "nginx:alpine", "nginx:mainline"}, "delayed-nginx": {"menedev/delayed-nginx:1.15.2"}, "redis": {"redis"},
	"alpine": {"alpine", "alpine:3.23"}, "bash": {"bash:5.2.26"}, "postgres": {"postgres:12"}, "registry": {"registry:2"},
}

// TestTestcontainersOwn runs the tests that testcontainers-go has of itself,
// unmodified, from the module's source.
func TestTestcontainersOwn(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "import", images.Debian(t), "debian:bookworm")
	for target, names := range hubImages {
		args := []string{"build", "-q", "--target", target}
		for _, name := range names {
			args = append(args, "-t", name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, d.Program("tare"), append(args, filepath.Join(daemon.Root(), "test/clients/images"))...)
		cmd.Env = append(d.Env(), "DOCKER_BUILDKIT=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	source := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", `go mod download github.com/testcontainers/testcontainers-go
cp -r "$(go list -m -f '{{.Dir}}' github.com/testcontainers/testcontainers-go)/." "$1"
chmod -R u+w "$1"`, "sh", source)
	cmd.Dir = filepath.Join(daemon.Root(), "test/clients")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd = exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-p", "1", "-skip", strings.Join(skippedOfTestcontainers, "|"), ".", "./wait", "./network", "./internal/...", "./exec/...", "./log/...")
	cmd.Dir = source
	cmd.Env = append(d.Env(), "HOME="+t.TempDir(), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"), "TESTCONTAINERS_RYUK_DISABLED=true", "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if dir := os.Getenv("TARE_TEST_KEEP"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "testcontainers.log"), out, 0o644); err != nil {
			t.Error(err)
		}
	}
	passed, failed := 0, []string{}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "--- PASS: ") {
			passed++
		} else if strings.HasPrefix(line, "--- FAIL: ") {
			failed = append(failed, strings.Fields(line)[2])
		}
	}
	t.Logf("%d of their tests pass", passed)
	if err != nil || passed < 100 {
		t.Errorf("%v; failed are %v\n%s", err, failed, out[max(0, len(out)-20000):])
	}
}

// skippedOfTestcontainers are what cannot be had here: images that are only on
// Docker Hub, the reaper, and an engine in a container.
var skippedOfTestcontainers = []string{
	"^Test.*Reaper", "^TestPodman",
}
