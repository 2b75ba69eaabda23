package e2e

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestBootstrap makes a base image of the packages of Debian, twice: the second
// is the first, byte for byte, and a container runs on it.
func TestBootstrap(t *testing.T) {
	testutil.RequireRoot(t)
	t.Parallel()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatal("mmdebstrap is missing; make test installs it")
	}
	d := daemon.Start(t)
	bootstrap := func(tag string) string {
		t.Helper()
		// The clock of a test machine may be ahead of its package mirror.
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, d.Program("tare"), "image", "bootstrap", "-q", "--variant", "essential", "--apt-option", `Acquire::Check-Valid-Until "false"`,
			"-t", tag, "debian:"+codename(t))
		c.Env = append(d.Env(), "SOURCE_DATE_EPOCH=1700000000")
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // the tool has mounts to undo
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	id := bootstrap("base:1")
	if !strings.HasPrefix(id, "sha256:") {
		t.Errorf("the ID is %q", id)
	}
	config := d.Tare(t, "image", "inspect", "-f", `{{json .Config.Cmd}} {{.Os}} {{index .Config.Labels "org.opencontainers.image.version"}}`, "base:1")
	if want := `["bash"] linux ` + codename(t); config != want {
		t.Errorf("the image's configuration is %s, want %s", config, want)
	}
	out := d.Tare(t, "run", "--rm", "base:1", "bash", "-c", `. /etc/os-release; echo $ID $VERSION_CODENAME; stat -c %u /etc/passwd`)
	if want := "debian " + codename(t) + "\n0"; out != want {
		t.Errorf("the container says %q, want %q", out, want)
	}
	if again := bootstrap("base:2"); again != id {
		t.Errorf("the same packages gave %s and %s", id, again)
	}
}
