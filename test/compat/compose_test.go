package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestCompose runs the scripts in compose/ with Compose as docker-compose in the
// PATH, built from the module of the foreign clients.
func TestCompose(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "docker-compose"), "github.com/docker/compose/v5/cmd")
	build.Dir = filepath.Join(daemon.Root(), "test/clients")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	daemon.Scripts(t, "compose")
}
