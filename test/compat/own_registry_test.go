package compat

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/daemon"
)

// TestOwnRegistry has Docker's client, skopeo and ours use tare-registry by
// turns: what one pushes, the others list, pull and delete.
func TestOwnRegistry(t *testing.T) {
	d := daemon.Start(t)
	d.ImportBusybox(t)
	users := filepath.Join(t.TempDir(), "users")
	if out, err := exec.Command("htpasswd", "-Bbc", "-C", "4", users, "ann", "secret").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	url := serve(t, fmt.Sprintf(`
[storage]
root = %q
[auth]
htpasswd = %q
[[auth.rule]]
match = ["**"]
pull = ["*"]
push = ["ann"]
delete = ["ann"]
[[repository]]
match = ["**"]
immutable_tags = ["v*"]
`, filepath.Join(t.TempDir(), "root"), users))
	host := strings.TrimPrefix(url, "http://")
	box := host + "/team/box"
	run := func(want string, line ...string) {
		t.Helper()
		out, err := docker(t, d, "secret\n", line...)
		if refused := strings.Contains(want, "ed: "); refused != (err != nil) || !strings.Contains(out, want) {
			t.Errorf("docker %v: %v, want %q:\n%s", line, err, want, out)
		}
	}
	skopeo := func(want string, line ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "skopeo", line...).CombinedOutput()
		if refused := strings.Contains(want, "ed: "); refused != (err != nil) || !strings.Contains(string(out), want) {
			t.Errorf("skopeo %v: %v, want %q:\n%s", line, err, want, out)
		}
	}
	plain, creds := "--tls-verify=false", "--creds=ann:secret"

	run("", "tag", "busybox", box+":v1")
	run("unauthorized: ", "push", box+":v1")
	run("Login Succeeded", "login", "-u", "ann", "--password-stdin", host)
	run("digest: sha256:", "push", box+":v1")
	run("", "logout", host)
	run("", "rmi", box+":v1")

	skopeo(`"v1"`, "list-tags", plain, "docker://"+box)
	skopeo("sha256:", "inspect", plain, "--format", "{{.Digest}}", "docker://"+box+":v1")
	skopeo("", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds=ann:secret", "--format=v2s2", "docker://"+box+":v1", "docker://"+box+":d")
	skopeo("denied: tag v1 of team/box is immutable", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds=ann:secret", "docker://"+box+":d", "docker://"+box+":v1")

	run("", "pull", box+":d")
	run("", "run", "--rm", box+":d", "true")
	run("", "pull", "--all-tags", box)
	d.Tare(t, "rmi", box+":v1")
	d.Tare(t, "pull", box+":v1")
	run("\"schemaVersion\"", "manifest", "inspect", "--insecure", box+":d")

	skopeo("", "delete", plain, creds, "docker://"+box+":d")
	if out, err := docker(t, d, "", "pull", box+":d"); err == nil || !strings.Contains(out, "has no tag d") {
		t.Errorf("what was deleted: %v %s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "skopeo", "delete", plain, creds, "docker://"+box+":v1").CombinedOutput(); err == nil || !strings.Contains(string(out), "immutable") {
		t.Errorf("what is immutable: %v %s", err, out)
	}
}
