package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// TestMirror pulls and pushes by a mirror of a registry that is not Docker Hub,
// under other names than the registry's.
func TestMirror(t *testing.T) {
	testutil.RequireRoot(t)
	t.Parallel()
	origin, second := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{})
	front, mirror := faulty.Start(t, faulty.Options{Registry: origin}), faulty.Start(t, faulty.Options{Registry: second})
	img := images.Make(t, images.Spec{Layers: 2, Files: 10})
	images.Copy(t, img.Ref(), "docker://"+second.Host+"/copies/app:1")
	hosts := t.TempDir()
	d := daemon.Start(t, "--registry-hosts-dir", hosts)
	by := func(url, capabilities string) {
		t.Helper()
		dir := filepath.Join(hosts, front.Host)
		text := fmt.Sprintf("[host.%q]\ncapabilities = [%s]\n[host.%[1]q.rewrite]\n\"^team/(.*)\" = \"copies/$1\"\n", url, capabilities)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	app := front.Host + "/team/app:1"
	pull := func(what string) {
		t.Helper()
		front.Forget()
		mirror.Forget()
		d.Tare(t, "pull", "-q", app)
		if id := imageID(t, d, app); id != img.Manifest.Digest.String() {
			t.Errorf("%s: the image is %s", what, id)
		}
	}
	asked := func(p *faulty.Proxy) int {
		return p.Count(func(r *faulty.Request) bool { return r.Path != "/v2/" })
	}

	by(mirror.URL, `"pull", "resolve"`)
	pull("by the mirror")
	if n := asked(front); n != 0 {
		t.Errorf("the registry was asked %d times for what the mirror has", n)
	}
	if n := mirror.Count(faulty.Path(http.MethodGet, "/v2/copies/app/blobs/")); n != 3 {
		t.Errorf("the mirror was asked for %d blobs under its name", n)
	}

	has := func(r *registry.Registry, repository string) bool {
		_, err := r.Get("/v2/"+repository+"/manifests/1", ocispec.MediaTypeImageManifest)
		return err == nil
	}
	d.Tare(t, "tag", app, front.Host+"/team/first:1")
	d.Tare(t, "push", "-q", front.Host+"/team/first:1")
	if !has(origin, "team/first") || has(second, "copies/first") {
		t.Error("a push went to a mirror that may not be pushed to")
	}
	by(mirror.URL, `"pull", "resolve", "push"`)
	d.Tare(t, "tag", app, front.Host+"/team/second:1")
	d.Tare(t, "push", "-q", front.Host+"/team/second:1")
	if has(origin, "team/second") || !has(second, "copies/second") {
		t.Error("a push did not go to the mirror that may be pushed to")
	}

	images.Copy(t, img.Ref(), "docker://"+origin.Host+"/team/app:1")
	clear := func() {
		d.Tare(t, "rmi", app, front.Host+"/team/first:1", front.Host+"/team/second:1")
	}
	clear()
	manifests := func(r *faulty.Request) bool { return strings.Contains(r.Path, "/manifests/") }
	for name, lie := range map[string]func(*faulty.Request) *faulty.Fault{
		"wrong blobs":     faulty.Always(faulty.Blobs(), faulty.Fault{Corrupt: true, CorruptAt: 50}),
		"wrong manifests": faulty.Always(manifests, faulty.Fault{Corrupt: true, CorruptAt: 50}),
	} {
		mirror.On(lie)
		pull(name)
		if asked(mirror) == 0 || asked(front) == 0 {
			t.Errorf("%s: %d requests to the mirror, %d to the registry", name, asked(mirror), asked(front))
		}
		d.Tare(t, "rmi", app)
	}

	by(second.URL, `"pull", "resolve"`)
	if err := second.Down(); err != nil {
		t.Fatal(err)
	}
	pull("the mirror is down")
}
