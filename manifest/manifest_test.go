package manifest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/manifest"
	"github.com/tarehq/tare/remote"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// place is a user's directory and a registry with images for two machines.
type place struct {
	t     *testing.T
	lists *manifest.Lists
	host  string
	dir   string
	reg   *registry.Registry
}

func newPlace(t *testing.T) *place {
	reg := registry.Start(t, registry.Options{})
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	p := &place{t: t, host: reg.Host, dir: t.TempDir(), reg: reg}
	p.lists = manifest.New(p.dir, client, func(string) remote.Credentials { return remote.Credentials{} })
	for seed, arch := range []string{"amd64", "arm64"} {
		for name, docker := range map[string]bool{"oci": false, "docker": true} {
			image := images.Make(t, images.Spec{Seed: uint64(seed), Docker: docker, Layers: 2, Platform: ocispec.Platform{OS: "linux", Architecture: arch}})
			images.Copy(t, image.Ref(), "docker://"+p.name(name+":"+arch))
		}
	}
	return p
}

func (p *place) name(short string) string { return p.host + "/" + short }

// names adds the host to names that are separated by blanks.
func (p *place) names(short string) []string {
	var out []string
	for _, s := range strings.Fields(short) {
		out = append(out, p.name(s))
	}
	return out
}

func (p *place) create(list, of string, amend bool) error {
	return p.lists.Create(p.t.Context(), &bytes.Buffer{}, p.name(list), p.names(of), amend)
}

func (p *place) inspect(list, name string, verbose bool) string {
	p.t.Helper()
	var out bytes.Buffer
	if list != "" {
		list = p.name(list)
	}
	if err := p.lists.Inspect(p.t.Context(), &out, list, p.name(name), verbose); err != nil {
		p.t.Fatal(err)
	}
	return out.String()
}

// push returns the last line: the list's digest.
func (p *place) push(list string, purge bool) digest.Digest {
	p.t.Helper()
	var out bytes.Buffer
	if err := p.lists.Push(p.t.Context(), &out, p.name(list), purge); err != nil {
		p.t.Fatal(err)
	}
	lines := strings.Fields(out.String())
	return digest.Digest(lines[len(lines)-1])
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return v
}

// A list of images of both types is OCI's, one of Docker's alone is Docker's.
// The registry has afterwards what was made, with all that it points to.
func TestCreateAndPush(t *testing.T) {
	p := newPlace(t)
	for list, c := range map[string]struct{ of, mediaType string }{
		"mixed:1":  {"oci:amd64 docker:arm64", ocispec.MediaTypeImageIndex},
		"docker:1": {"docker:amd64 docker:arm64", content.DockerManifestList},
		"pure:1":   {"docker:amd64 docker:arm64", content.DockerManifestList},
	} {
		if err := p.create(list, c.of, false); err != nil {
			t.Fatal(err)
		}
		local := p.inspect("", list, false)
		d := p.push(list, true)
		if d != digest.FromString(strings.TrimSuffix(local, "\n")) {
			t.Errorf("%s: pushed as %s, not the list that was shown:\n%s", list, d, local)
		}
		if left, _ := os.ReadDir(filepath.Join(p.dir, "manifests")); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
		index := decode[ocispec.Index](t, p.inspect("", list, false)) // now from the registry
		if index.MediaType != c.mediaType || len(index.Manifests) != 2 || index.Manifests[0].Platform.OS != "linux" ||
			index.Manifests[0].Platform.Architecture+index.Manifests[1].Platform.Architecture != "amd64arm64" &&
				index.Manifests[0].Platform.Architecture+index.Manifests[1].Platform.Architecture != "arm64amd64" {
			t.Errorf("%s: %+v", list, index)
		}
		to := t.TempDir()
		images.Copy(t, "docker://"+p.name(list), "dir:"+to) // all that it points to
	}
}

func TestAmendAnnotateRemove(t *testing.T) {
	p := newPlace(t)
	if err := p.create("l:1", "oci:amd64", false); err != nil {
		t.Fatal(err)
	}
	if err := p.create("l:1", "oci:arm64", false); fault.KindOf(err) != fault.Conflict {
		t.Error(err)
	}
	if err := p.create("l:1", "oci:arm64", true); err != nil {
		t.Fatal(err)
	}
	a := manifest.Annotation{Architecture: "arm", Variant: "v7", OSVersion: "10", OSFeatures: []string{"x", "y", "x"}}
	if err := p.lists.Annotate(p.name("l:1"), p.name("oci:arm64"), a); err != nil {
		t.Fatal(err)
	}
	if err := p.lists.Annotate(p.name("l:1"), p.name("oci:arm64"), manifest.Annotation{Architecture: "z80"}); err == nil ||
		err.Error() != "manifest entry for image has unsupported os/arch combination: linux/z80" {
		t.Error(err)
	}
	if err := p.lists.Annotate(p.name("l:1"), p.name("no:1"), a); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	text, _ := json.Marshal(decode[ocispec.Index](t, p.inspect("", "l:1", false)).Manifests[1].Platform)
	if want := `{"architecture":"arm","os":"linux","os.version":"10","os.features":["x","y"],"variant":"v7"}`; string(text) != want {
		t.Errorf("%s", text)
	}
	all := decode[[]manifest.Image](t, p.inspect("", "l:1", true))
	one := decode[manifest.Image](t, p.inspect("l:1", "oci:arm64", true))
	if len(all) != 2 || one.Ref != p.name("oci:arm64") || one.Descriptor.Platform.Variant != "v7" || digest.FromBytes(one.Raw) != one.Descriptor.Digest {
		t.Errorf("%+v\n%+v", all, one)
	}
	if got := decode[ocispec.Manifest](t, p.inspect("l:1", "oci:arm64", false)); len(got.Layers) != 2 {
		t.Errorf("%+v", got)
	}
	if err := p.lists.Remove([]string{p.name("no:1"), p.name("l:1")}); err == nil || err.Error() != "No such manifest: "+p.name("no:1") {
		t.Error(err)
	}
	if err := p.lists.Push(t.Context(), &bytes.Buffer{}, p.name("l:1"), false); err == nil || err.Error() != "No such manifest: "+p.name("l:1") {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	p := newPlace(t)
	if err := p.create("l:1", "oci:amd64 no:1", false); err == nil || err.Error() != "no such manifest: "+p.name("no:1") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "manifests")); err == nil {
		t.Error("half a list was stored")
	}
	if err := p.create("l:1", "oci:amd64", false); err != nil {
		t.Fatal(err)
	}
	p.push("l:1", false)
	if err := p.create("l:2", "l:1", false); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "is a manifest list, not an image") {
		t.Error(err)
	}
	if err := p.lists.Create(t.Context(), &bytes.Buffer{}, "elsewhere.example/l:1", p.names("oci:amd64"), false); err != nil {
		t.Fatal(err)
	}
	if err := p.lists.Push(t.Context(), &bytes.Buffer{}, "elsewhere.example/l:1", false); err == nil ||
		!strings.HasPrefix(err.Error(), "cannot use source images from a different registry than the target image: ") {
		t.Error(err)
	}
	// What somebody has changed in a file is not pushed.
	files, _ := filepath.Glob(filepath.Join(p.dir, "manifests", "*l-1", "*"))
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		image := decode[manifest.Image](t, string(text))
		image.Raw = append(image.Raw, ' ')
		image.OCIManifest = nil
		text, _ = json.Marshal(image)
		os.WriteFile(path, text, 0o644)
	}
	if err := p.lists.Push(t.Context(), &bytes.Buffer{}, p.name("l:1"), false); err == nil || !strings.Contains(err.Error(), "does not have the digest") {
		t.Error(err)
	}
}

// TestDockerGoesOn has Docker's client and this package make the same list, and
// each go on with what the other has begun.
func TestDockerGoesOn(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Fatal("docker is missing; make test installs it")
	}
	p := newPlace(t)
	docker := func(args ...string) string {
		t.Helper()
		c := exec.Command("docker", append([]string{"--config", p.dir, "manifest"}, args...)...)
		c.Env = append(os.Environ(), "DOCKER_CLI_EXPERIMENTAL=enabled")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("docker manifest %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	of := p.names("docker:amd64 docker:arm64")
	docker(append([]string{"create", "--insecure", p.name("theirs:1")}, of...)...)
	docker("annotate", "--arch", "arm", "--variant", "v7", p.name("theirs:1"), of[1])
	if err := p.create("ours:1", "docker:amd64 docker:arm64", false); err != nil {
		t.Fatal(err)
	}
	if err := p.lists.Annotate(p.name("ours:1"), of[1], manifest.Annotation{Architecture: "arm", Variant: "v7"}); err != nil {
		t.Fatal(err)
	}
	if ours, theirs := p.inspect("", "ours:1", false), p.inspect("", "theirs:1", false); ours != theirs {
		t.Errorf("of the same images\n%s\nand\n%s", ours, theirs)
	}
	digestOf := func(text string) string { lines := strings.Fields(text); return lines[len(lines)-1] }
	theirs := digestOf(docker("push", "--insecure", p.name("ours:1"))) // our list by their program
	if ours := p.push("theirs:1", false).String(); ours != theirs {
		t.Errorf("pushed as %s and %s", ours, theirs)
	}
}
