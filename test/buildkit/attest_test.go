package buildkit

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inTree reads all that lies below dir, for what must not be there.
func inTree(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// layoutOf is the OCI layout in an archive.
func layoutOf(t *testing.T, tar string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xf", tar, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return dir
}

// blob reads a blob of a layout.
func blob(t *testing.T, dir, digest string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "blobs", strings.Replace(digest, ":", "/", 1)))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type descriptor struct {
	MediaType, Digest string
	Annotations       map[string]string
	Platform          struct{ OS, Architecture string }
}

type manifest struct {
	MediaType string
	Manifests []descriptor
	Config    descriptor
	Layers    []descriptor
}

// TestProvenance has buildx ask for provenance in all its forms, and reads it.
func TestProvenance(t *testing.T) {
	r := newRig(t)
	dir := directory(t, map[string]string{"secret": "very-hidden", "Dockerfile": `FROM busybox
ARG WHO
ARG URL
RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=opt,required=false test ${#S} = 11 && test -n "$HTTP_PROXY" && echo $WHO $URL > /made
`})
	build := func(args ...string) string {
		return r.docker(t, dir, append([]string{"buildx", "build", "--secret", "id=s,src=secret", "--build-arg", "WHO=you", "--build-arg", "URL=https://ann:pass-in-url@192.0.2.1/x",
			"--build-arg", "HTTP_PROXY=http://bob:pass-in-proxy@192.0.2.2:3128", "--label", "a=b"}, append(args, ".")...)...)
	}
	statements := func(tar string) (m map[string]struct {
		Subject   []struct{ Name string }
		Predicate json.RawMessage
	}, index manifest) {
		layout := layoutOf(t, tar)
		if text := inTree(t, layout); strings.Contains(text, "very-hidden") || strings.Contains(text, "pass-in-proxy") {
			t.Error("a secret is in the image")
		}
		var top manifest
		text, err := os.ReadFile(layout + "/index.json")
		if err == nil {
			err = json.Unmarshal(text, &top)
		}
		if err != nil {
			t.Fatal(err)
		}
		blob(t, layout, top.Manifests[0].Digest, &index)
		m = map[string]struct {
			Subject   []struct{ Name string }
			Predicate json.RawMessage
		}{}
		for _, d := range index.Manifests {
			if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
				continue
			}
			if d.Platform.OS != "unknown" || d.Annotations["vnd.docker.reference.digest"] != index.Manifests[0].Digest {
				t.Errorf("the attestation's descriptor is %+v", d)
			}
			var said manifest
			blob(t, layout, d.Digest, &said)
			for _, l := range said.Layers {
				var s struct {
					Type          string `json:"_type"`
					PredicateType string
					Subject       []struct{ Name string }
					Predicate     json.RawMessage
				}
				blob(t, layout, l.Digest, &s)
				if l.MediaType != "application/vnd.in-toto+json" || l.Annotations["in-toto.io/predicate-type"] != s.PredicateType || s.Type != "https://in-toto.io/Statement/v1" {
					t.Errorf("the statement is %+v of %+v", s.PredicateType, l)
				}
				m[s.PredicateType] = struct {
					Subject   []struct{ Name string }
					Predicate json.RawMessage
				}{s.Subject, s.Predicate}
			}
		}
		return m, index
	}
	t.Run("max", func(t *testing.T) {
		build("--provenance=mode=max,builder-id=https://example.com/us,version=v1", "--output", "type=oci,dest=max.tar,name=example/max:1")
		all, index := statements(dir + "/max.tar")
		said, ok := all["https://slsa.dev/provenance/v1"]
		text := string(said.Predicate)
		if !ok || len(index.Manifests) != 2 {
			t.Fatalf("there are %d manifests, and %v", len(index.Manifests), all)
		}
		for _, want := range []string{`"uri":"pkg:docker/busybox@latest?platform=linux%2F`, `"id":"https://example.com/us"`, `"frontend":"dockerfile.v0"`, `"build-arg:WHO":"you"`, `"label:a":"b"`,
			`"secrets":[{"id":"opt","optional":true},{"id":"s"`, `"locals":[{"name":"dockerfile"}]`, `"llbDefinition":[`, `"filename":"Dockerfile"`, `"step1:0":[[{`, `"builderPlatform":"linux/`, `"startedOn"`, `"finishedOn"`} {
			if !strings.Contains(text, want) {
				t.Errorf("it does not tell %s:\n%s", want, text)
			}
		}
		for _, not := range []string{"pass-in-url", "ann:", "192.0.2.2", "local.session"} {
			if strings.Contains(text, not) {
				t.Errorf("it tells %s:\n%s", not, text)
			}
		}
		if len(said.Subject) != 1 || !strings.HasPrefix(said.Subject[0].Name, "pkg:docker/example/max@1?platform=linux%2F") {
			t.Errorf("it is about %+v", said.Subject)
		}
	})
	t.Run("min", func(t *testing.T) {
		build("--provenance=mode=min,version=v0.2", "--output", "type=oci,dest=min.tar")
		all, _ := statements(dir + "/min.tar")
		text := string(all["https://slsa.dev/provenance/v0.2"].Predicate)
		if !strings.Contains(text, `"buildType":"https://mobyproject.org/buildkit@v1"`) || !strings.Contains(text, `"invocation"`) {
			t.Errorf("it is %s", text)
		}
		for _, not := range []string{"build-arg:", "label:", "secrets", "llbDefinition", "pass-in-url"} {
			if strings.Contains(text, not) {
				t.Errorf("it tells %s:\n%s", not, text)
			}
		}
	})
	t.Run("default", func(t *testing.T) {
		build("-t", "example/default")
		text := r.docker(t, dir, "image", "inspect", "--format", "{{json .Descriptor}}", "example/default")
		if !strings.Contains(text, "image.index") {
			t.Errorf("the image is %s", text)
		}
		build("--output", "type=oci,dest=plain.tar") // what is only for images is not in an archive
		if _, index := statements(dir + "/plain.tar"); len(index.Manifests) != 0 {
			t.Errorf("an archive of which nobody asked for provenance has %+v", index.Manifests)
		}
		r.docker(t, dir, "BUILDX_NO_DEFAULT_ATTESTATIONS=1", "buildx", "build", "--secret", "id=s,src=secret", "--build-arg", "HTTP_PROXY=http://192.0.2.2", "-t", "example/none", ".")
		if text := r.docker(t, dir, "image", "inspect", "--format", "{{json .Descriptor}}", "example/none"); !strings.Contains(text, "image.manifest") {
			t.Errorf("without attestations it is %s", text)
		}
		if text := r.docker(t, dir, "run", "--rm", "example/default", "cat", "/made"); !strings.Contains(text, "you https://ann:") {
			t.Errorf("the image has %q", text)
		}
		if text := r.docker(t, dir, "image", "ls", "--tree", "example/default"); !strings.Contains(text, "example/default") {
			t.Errorf("listed is %s", text)
		}
	})
	t.Run("files", func(t *testing.T) {
		write(t, dir, map[string]string{"Files": "FROM scratch\nCOPY secret /data\n"})
		build("-f", "Files", "--provenance=true", "--output", "type=local,dest=out,attestation-prefix=my-")
		text, err := os.ReadFile(dir + "/out/my-provenance.json")
		if err != nil || !strings.Contains(string(text), `"name": "data"`) {
			t.Errorf("%v: %s", err, text)
		}
	})
	t.Run("registry", func(t *testing.T) {
		name := registry(t, "") + "/team/app:1"
		build("--provenance=mode=max", "--push", "-t", name)
		text := r.docker(t, dir, "buildx", "imagetools", "inspect", "--format", "{{json .Provenance}}", name)
		if !strings.Contains(text, `"llbDefinition"`) || !strings.Contains(text, "pkg:docker/busybox@latest") {
			t.Errorf("imagetools reads %s", text)
		}
	})
}

// TestSBOM has a scanner of our own say what is in an image.
func TestSBOM(t *testing.T) {
	r := newRig(t)
	image(t, r.Daemon, "example/scanner:1", "./test/buildkit/testdata/scanner")
	name := registry(t, "") + "/team/app:1"
	dir := directory(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo x > /seen-by-scanner\n"})
	r.docker(t, dir, "buildx", "build", "--attest", "type=sbom,generator=example/scanner:1,name=ours,predicate=https://spdx.dev/Document", "--push", "-t", name, ".")
	text := r.docker(t, dir, "buildx", "imagetools", "inspect", "--format", "{{json .SBOM}}", name)
	if !strings.Contains(text, "seen-by-scanner") || !strings.Contains(text, `"ours"`) {
		t.Errorf("the SBOM is %s", text)
	}
	if text, err := r.try(t, dir, "buildx", "build", "--attest", "type=sbom,generator=example/scanner:1,predicate=https://slsa.dev/provenance/v1", "-t", name, "."); err == nil || !strings.Contains(text, "does not match required predicate type") {
		t.Errorf("a scanner that says how the image was made: %v %s", err, text)
	}
	// Each file has its layer; contexts and stages that ask for it are scanned as well.
	write(t, dir, map[string]string{"Staged": `FROM busybox AS one
ARG BUILDKIT_SBOM_SCAN_STAGE=true
RUN echo x > /in-stage-one
FROM busybox AS two
RUN echo x > /in-stage-two
FROM busybox
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
RUN echo 1 > /first; echo 1 > /gone
RUN echo 2 > /second; rm /gone
COPY --from=one /in-stage-one /
COPY --from=two /in-stage-two /
`})
	r.docker(t, dir, "buildx", "build", "-f", "Staged", "--attest", "type=sbom,generator=example/scanner:1,name=ours,predicate=https://spdx.dev/Document", "--output", "type=oci,dest=o,tar=false,compression=uncompressed", ".")
	_, index := indexOf(t, dir+"/o")
	var image, attached manifest
	blob(t, dir+"/o", index.Manifests[0].Digest, &image)
	blob(t, dir+"/o", index.Manifests[1].Digest, &attached)
	scanned := map[string]map[string]string{}
	for _, l := range attached.Layers {
		var s struct {
			Predicate struct {
				Scanned      string
				Files        []struct{ FileName, Comment string }
				CreationInfo struct{ Creators []string }
			}
		}
		blob(t, dir+"/o", l.Digest, &s)
		files := map[string]string{}
		for _, f := range s.Predicate.Files {
			files[f.FileName] = strings.TrimPrefix(f.Comment, "layerID: ")
		}
		scanned[s.Predicate.Scanned] = files
	}
	for _, x := range []struct{ of, name string }{{"sbom-context", "Staged"}, {"sbom-one", "in-stage-one"}} {
		if _, ok := scanned[x.of][x.name]; !ok || scanned[x.of][x.name] != "" {
			t.Errorf("%s: %v", x.of, scanned)
		}
	}
	core, n := scanned["sbom"], len(image.Layers)
	if core == nil || len(scanned) != 3 {
		t.Fatalf("scanned is %v", scanned)
	}
	for name, layer := range map[string]int{"first": n - 4, "second": n - 3, "in-stage-one": n - 2, "in-stage-two": n - 1, "bin/busybox": 0} {
		if core[name] != image.Layers[layer].Digest {
			t.Errorf("%s is of %q, not of %s", name, core[name], image.Layers[layer].Digest)
		}
	}
}
