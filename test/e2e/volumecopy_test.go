package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/registry"
)

// A volume goes to a registry as an artifact and comes back as it was; an image
// is no volume, and a volume no image.
func TestVolumeInRegistry(t *testing.T) {
	testutil.RequireRoot(t)
	t.Parallel()
	reg := registry.Start(t, registry.Options{})
	d := daemon.Start(t)
	d.ImportBusybox(t)
	ref := reg.Host + "/backup/data:monday"
	d.Tare(t, "volume", "create", "data")
	d.Tare(t, "run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/f; ln /d/f /d/g; chown 7:8 /d/f; mkfifo /d/p")
	pushed := d.Tare(t, "volume", "push", "data", ref)
	if !strings.Contains(pushed, "\nmonday: digest: sha256:") {
		t.Errorf("push says\n%s", pushed)
	}
	if out := d.Tare(t, "volume", "push", "-q", "data", ref); out != ref {
		t.Errorf("push -q says %q", out)
	}
	d.Tare(t, "volume", "pull", "back", ref)
	out := d.Tare(t, "run", "--rm", "-v", "back:/d", "busybox", "sh", "-c", "cat /d/g; stat -c '%u:%g %h' /d/f; test -p /d/p && echo pipe")
	if out != "kept\n7:8 2\npipe" {
		t.Errorf("it came back with %q", out)
	}
	ask, err := http.NewRequestWithContext(t.Context(), "GET", reg.URL+"/v2/backup/data/manifests/monday", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var m struct {
		ArtifactType string
		Layers       []struct{ MediaType string }
		Annotations  map[string]string
	}
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil || m.ArtifactType != "application/vnd.tare.volume.v1" ||
		len(m.Layers) != 1 || m.Layers[0].MediaType != "application/vnd.oci.image.layer.v1.tar+zstd" || m.Annotations["org.opencontainers.image.title"] != "data" {
		t.Errorf("the manifest is %+v, %v", m, err)
	}
	d.Tare(t, "tag", "busybox", reg.Host+"/team/app")
	d.Tare(t, "push", reg.Host+"/team/app")
	for what, args := range map[string][]string{
		"is no volume":     {"volume", "pull", "image", reg.Host + "/team/app"},
		"exists already":   {"volume", "pull", "data", ref},
		"no such volume":   {"volume", "push", "nosuch", ref},
		"manifest unknown": {"volume", "pull", "none", reg.Host + "/backup/none"},
	} {
		if out, err := d.Command(t, "tare", args...).CombinedOutput(); err == nil || !strings.Contains(string(out), what) {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	if out := d.Tare(t, "volume", "ls", "-q"); out != "back\ndata" {
		t.Errorf("volumes are %q", out)
	}
}

// On btrfs a volume's bound holds, for what its image brings too, and a clone
// has a bound of its own.
func TestVolumeBound(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	volumes := filepath.Join(dataRoot(t, d), "volumes")
	if err := os.MkdirAll(volumes, 0o711); err != nil {
		t.Fatal(err)
	}
	d.AtEnd(testutil.MountBtrfs(t, volumes))
	d.Up(t)
	d.ImportBusybox(t)
	d.Tare(t, "run", "--name", "maker", "busybox", "sh", "-c", "mkdir /d; echo image > /d/f")
	d.Tare(t, "commit", "maker", "filled")
	d.Tare(t, "volume", "create", "--opt", "size=8m", "data")
	const fill = "cat /d/f; dd if=/dev/zero of=/d/big bs=1M count=32 conv=fsync 2>&1 | grep -o 'quota exceeded'; rm -f /d/big"
	for _, name := range []string{"data", "copy"} {
		if out := d.Tare(t, "run", "--rm", "-v", name+":/d", "filled", "sh", "-c", fill); out != "image\nquota exceeded" {
			t.Errorf("%s: %q", name, out)
		}
		if name == "data" {
			d.Tare(t, "volume", "clone", "data", "copy")
		}
	}
	if out := d.Tare(t, "volume", "inspect", "-f", "{{.Options}}", "copy"); out != "map[size:8m]" {
		t.Errorf("its options are %s", out)
	}
	d.Tare(t, "rm", "maker")
	d.Tare(t, "volume", "rm", "data", "copy")
}
