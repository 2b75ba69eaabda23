package compat

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/sid"
)

// TestCompose runs the scripts in compose/ with Compose as docker-compose in the
// PATH: the newest, built from the module of the foreign clients, which builds
// by Debian's buildx, and Debian's own.
func TestCompose(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	place := sid.New(t)
	t.Setenv("DEBIAN", images.Debian(t))
	path := os.Getenv("PATH")
	t.Run("newest", func(t *testing.T) {
		dir := t.TempDir()
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "docker-compose"), "github.com/docker/compose/v5/cmd")
		build.Dir = filepath.Join(daemon.Root(), "test/clients")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Setenv("PATH", dir+":"+path)
		buildx := filepath.Join(place.Programs(t, "/usr/libexec/docker/cli-plugins/docker-buildx"), "docker-buildx")
		daemon.Scripts(t, "compose", func(env *testscript.Env) error {
			dir := filepath.Join(env.Getenv("DOCKER_CONFIG"), "cli-plugins")
			return errors.Join(os.MkdirAll(dir, 0o755), os.Symlink(buildx, filepath.Join(dir, "docker-buildx")), lendDebian(env))
		})
	})
	t.Run("debian", func(t *testing.T) {
		t.Setenv("PATH", place.Programs(t, "docker-compose")+":"+path)
		daemon.Scripts(t, "compose", lendDebian)
	})
}

// lendDebian tells a script where there is a tar of Debian's.
func lendDebian(env *testscript.Env) error {
	env.Setenv("DEBIAN", os.Getenv("DEBIAN"))
	return nil
}
