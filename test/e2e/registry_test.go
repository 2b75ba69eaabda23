package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/registry"
)

// TestRegistry takes an image from a container through a registry and back, all
// by tare.
func TestRegistry(t *testing.T) {
	testutil.RequireRoot(t)
	t.Parallel()
	reg := registry.Start(t, registry.Options{})
	d := daemon.Start(t)
	d.ImportBusybox(t)
	app := reg.Host + "/team/app"

	d.Tare(t, "run", "--name", "src", "busybox", "sh", "-c", "echo made > /made; rm /etc/passwd; mkdir /new")
	if out := d.Tare(t, "diff", "src"); out != "C /etc\nD /etc/passwd\nA /made\nA /new" {
		t.Errorf("diff says %q", out)
	}
	id := d.Tare(t, "commit", "-a", "me", "-m", "a message", "-c", `CMD ["cat", "/made"]`, "src", app+":1")
	if got := d.Tare(t, "image", "inspect", "-f", "{{.Id}} {{.Author}} {{.Comment}}", app+":1"); got != id+" me a message" {
		t.Errorf("%s, not of %s", got, id)
	}
	if out, err := d.Command(t, "sh", "-c", "tare export src | tar t").Output(); err != nil || !strings.Contains(string(out), "made\n") || strings.Contains(string(out), "etc/passwd\n") {
		t.Errorf("%v\n%s", err, out)
	}
	d.Tare(t, "tag", app+":1", app+":latest")

	pushed := d.Tare(t, "push", app)
	if !strings.HasPrefix(pushed, "Using default tag: latest\nThe push refers to repository ["+app+"]\n") || !strings.Contains(pushed, "\nlatest: digest: sha256:") {
		t.Errorf("push says\n%s", pushed)
	}
	if out := d.Tare(t, "push", "-q", "-a", app); out != app {
		t.Errorf("push -q -a says %q", out)
	}
	d.Tare(t, "rm", "src")
	d.Tare(t, "rmi", app+":1", app+":latest")

	pulled := d.Tare(t, "pull", app)
	if !strings.HasPrefix(pulled, "Using default tag: latest\nlatest: Pulling from team/app\n") ||
		!strings.HasSuffix(pulled, "\nStatus: Downloaded newer image for "+app+":latest\n"+app+":latest") {
		t.Errorf("pull says\n%s", pulled)
	}
	if out := d.Tare(t, "pull", "-a", "-q", app); out != app {
		t.Errorf("pull -q -a says %q", out)
	}
	if got := d.Tare(t, "image", "inspect", "-f", "{{.Id}}", app+":1"); got != id {
		t.Errorf("the image came back as %s, it was %s", got, id)
	}
	d.Tare(t, "rmi", app+":1", app+":latest")

	// A missing image is pulled; stdout is the container's alone.
	c := d.Command(t, "tare", "run", "--rm", app+":1")
	var errOut strings.Builder
	c.Stderr = &errOut
	out, err := c.Output()
	if err != nil || string(out) != "made\n" || !strings.HasPrefix(errOut.String(), "Unable to find image '"+app+":1' locally\n1: Pulling from team/app\n") {
		t.Errorf("%v %q\n%s", err, out, errOut.String())
	}
	_, err = d.Try("run", "--rm", reg.Host+"/no/such:1")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 125 {
		t.Errorf("an image that is nowhere: %v", err)
	}

	archive := filepath.Join(t.TempDir(), "app.tar")
	d.Tare(t, "save", "-o", archive, "--compression", "zstd", "--compression-level", "3", app+":1")
	if text, err := os.ReadFile(archive); err != nil || !bytes.Contains(text, []byte("tar+zstd")) {
		t.Errorf("the saved layers are not packed by zstd: %v", err)
	}
	if out := d.Tare(t, "image", "prune", "-af"); !strings.HasPrefix(out, "Deleted Images:\n") || !strings.Contains(out, "\nTotal reclaimed space: ") {
		t.Errorf("prune says\n%s", out)
	}
	if out := d.Tare(t, "images", "-aq"); out != "" {
		t.Errorf("left is %s", out)
	}
	if out := d.Tare(t, "load", "-i", archive); out != "Loaded image: "+app+":1" {
		t.Errorf("load says %q", out)
	}
	df := d.Tare(t, "system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}")
	if !strings.HasPrefix(df, "Images 1 0\nContainers 0 0\n") {
		t.Errorf("df says\n%s", df)
	}
	if out := d.Tare(t, "system", "df", "-v"); !strings.Contains(out, app) {
		t.Errorf("df -v says\n%s", out)
	}
}

// TestLogin needs a password for a registry: it is asked for by nobody, kept,
// used and forgotten.
func TestLogin(t *testing.T) {
	testutil.RequireRoot(t)
	t.Parallel()
	reg := registry.Start(t, registry.Options{Htpasswd: map[string]string{"ann": "s3cret"}})
	d := daemon.Start(t)
	d.ImportBusybox(t)
	app := reg.Host + "/app:1"
	d.Tare(t, "tag", "busybox", app)
	if out, err := d.Try("push", "-q", app); err == nil {
		t.Errorf("pushed by nobody: %s", out)
	}
	login := func(password string) (string, error) {
		c := d.Command(t, "tare", "login", "-u", "ann", "--password-stdin", reg.Host)
		c.Stdin = strings.NewReader(password)
		out, err := c.Output()
		return string(out), err
	}
	if out, err := login("wrong\n"); err == nil {
		t.Errorf("a wrong password: %s", out)
	}
	if out, err := login("s3cret\n"); err != nil || out != "Login Succeeded\n" {
		t.Errorf("%v %s", err, out)
	}
	d.Tare(t, "push", "-q", app)
	d.Tare(t, "rmi", app)
	d.Tare(t, "pull", "-q", app)
	if out := d.Tare(t, "manifest", "inspect", app); !strings.Contains(out, `"layers"`) {
		t.Error(out)
	}
	d.Tare(t, "logout", reg.Host)
	d.Tare(t, "rmi", app)
	if out, err := d.Try("pull", app); err == nil {
		t.Errorf("pulled by nobody: %s", out)
	}
}
