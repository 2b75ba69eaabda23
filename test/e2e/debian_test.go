package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// TestDebian imports a real Debian, serves real pages from its web server, and
// lets its package manager reach the world.
func TestDebian(t *testing.T) {
	testutil.RequireRoot(t)
	t.Parallel()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatal("mmdebstrap is missing; make test installs it")
	}
	tar := filepath.Join(t.TempDir(), "debian.tar")
	// The clock of a test machine may be ahead of its package mirror.
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--include=nginx-light,python3-minimal",
		"--aptopt=Acquire::Check-Valid-Until \"false\"", codename(t), tar)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	d := daemon.Start(t)
	d.Tare(t, "import", "--change", `CMD ["nginx", "-g", "daemon off;"]`, "--change", "EXPOSE 80", tar, "debian-nginx")

	d.Tare(t, "run", "-d", "--name", "web", "-p", "18090:80", "debian-nginx")
	page := ""
	testutil.Eventually(t, 20*time.Second, "nginx serves its page", func() bool {
		out, err := exec.Command("curl", "-s", "--max-time", "5", "http://127.0.0.1:18090/").Output()
		page = string(out)
		return err == nil
	})
	if !strings.Contains(page, "Welcome to nginx!") {
		t.Errorf("nginx's page is %q", page)
	}
	if out := d.Tare(t, "exec", "web", "python3", "-c", "import socket; print(socket.gethostname(), 6*7)"); !strings.HasSuffix(out, " 42") {
		t.Errorf("python says %q", out)
	}
	d.Tare(t, "stop", "web")
	if out := d.Tare(t, "inspect", "--format", "{{.State.ExitCode}}", "web"); out != "0" {
		t.Errorf("nginx was asked to stop and ended with %s:\n%s", out, d.Tare(t, "logs", "web"))
	}
	out := d.Tare(t, "run", "--rm", "debian-nginx", "apt-get", "-o", "Acquire::Check-Valid-Until=false", "update")
	if !strings.Contains(out, "Reading package lists") {
		t.Errorf("apt-get update in a container: %s", out)
	}
}

// codename is the release of the machine, for which the mirror is known.
func codename(t *testing.T) string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if name, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return "stable"
}
