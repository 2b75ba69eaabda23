package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestCgroups runs the comparison of our control groups with those of runc's
// library, which is a module of its own.
func TestCgroups(t *testing.T) {
	testutil.RequireRoot(t)
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("runc's library needs a C compiler (Debian's gcc)")
	}
	cmd := exec.Command("go", "test", "-count=1", ".")
	cmd.Dir, cmd.Env = filepath.Join(daemon.Root(), "test/cgroups"), append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
