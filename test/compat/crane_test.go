package compat

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/daemon"
)

// TestCrane has go-containerregistry's client push to tare-registry, list, copy,
// pull and delete, beside ours.
func TestCrane(t *testing.T) {
	needsClients(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "crane")
	build := exec.Command("go", "build", "-o", program, "github.com/google/go-containerregistry/cmd/crane")
	build.Dir = filepath.Join(daemon.Root(), "test/clients")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	host := strings.TrimPrefix(serve(t, fmt.Sprintf("[storage]\nroot = %q\n", filepath.Join(dir, "root"))), "http://")
	crane := func(line ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, append(line, "--insecure")...).Output()
		if err != nil {
			t.Fatalf("crane %v: %v\n%s", line, err, err.(*exec.ExitError).Stderr)
		}
		return strings.TrimSpace(string(out))
	}
	box, saved := host+"/team/box", filepath.Join(dir, "saved.tar")
	d.Tare(t, "save", "-o", saved, "busybox")
	crane("push", saved, box+":1")
	crane("copy", box+":1", host+"/other/box:2")
	if out := crane("ls", box); out != "1" {
		t.Errorf("its tags: %s", out)
	}
	if out := crane("catalog", host); out != "other/box\nteam/box" {
		t.Errorf("the repositories: %s", out)
	}
	if out := d.Tare(t, "run", "--rm", box+":1", "echo", "from crane"); !strings.HasSuffix(out, "from crane") {
		t.Errorf("what crane pushed says %q", out)
	}
	d.Tare(t, "tag", "busybox", box+":ours")
	d.Tare(t, "push", "-q", box+":ours")
	crane("pull", box+":ours", filepath.Join(dir, "pulled.tar"))
	crane("delete", box+"@"+crane("digest", box+":1"))
	if out := crane("ls", box); out != "ours" {
		t.Errorf("its tags after a deletion: %s", out)
	}
}
