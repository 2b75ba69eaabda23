package compat

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// foreign runs a program of other people's clients against a daemon that has
// the image busybox. Its output is shown when it fails.
func foreign(t *testing.T, dir string, argv ...string) {
	t.Helper()
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = filepath.Join(daemon.Root(), "test/clients", dir)
	cmd.Env = append(d.Env(), "TESTCONTAINERS_RYUK_DISABLED=true", "HOME="+t.TempDir(), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", argv, err, out)
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	if v := os.Getenv(name); v != "" {
		return v
	}
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out[:len(out)-1])
}

// needsClients skips what compiles other people's programs for minutes, unless
// this run is there for it.
func needsClients(t *testing.T) {
	t.Helper()
	if os.Getenv("TARE_TEST_CLIENTS") != "1" {
		t.Skip("make compat runs this")
	}
}

// The Go clients: testcontainers-go, and Docker's own SDK.
func TestGoClients(t *testing.T) {
	needsClients(t)
	foreign(t, "", "go", "test", "-count=1", "./...")
}

// Debian's package of Docker's SDK for Python.
func TestPython(t *testing.T) { foreign(t, "python", "/usr/bin/python3", "life.py") }

// npm's dockerode.
func TestNode(t *testing.T) {
	needsClients(t)
	foreign(t, "node", "sh", "-c", "npm install --silent --no-audit --no-fund --no-package-lock && npm test --silent")
}
