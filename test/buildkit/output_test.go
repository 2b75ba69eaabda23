package buildkit

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/sid"
)

// indexOf reads the index of a layout, and what it names first.
func indexOf(t *testing.T, layout string) (target descriptor, found manifest) {
	t.Helper()
	var top manifest
	text, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err == nil {
		err = json.Unmarshal(text, &top)
	}
	if err != nil || len(top.Manifests) == 0 {
		t.Fatalf("%v: %s", err, text)
	}
	blob(t, layout, top.Manifests[0].Digest, &found)
	return top.Manifests[0], found
}

// TestOutputs has buildx write one build in all the ways that it knows.
func TestOutputs(t *testing.T) {
	r := newRig(t)
	dir := directory(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo made > /made\n", "Files": "FROM scratch\nCOPY Dockerfile /d/\n"})
	build := func(args ...string) string {
		return r.docker(t, dir, append([]string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1", "buildx", "build"}, append(args, ".")...)...)
	}
	layers := func(m manifest) (kinds []string) {
		for _, l := range m.Layers {
			kinds = append(kinds, l.MediaType[strings.LastIndex(l.MediaType, "layer"):])
		}
		return kinds
	}
	t.Run("compression", func(t *testing.T) {
		for options, want := range map[string]string{
			"compression=gzip,compression-level=1":             "layer.v1.tar+gzip layer.v1.tar+gzip",
			"compression=zstd,force-compression=true":          "layer.v1.tar+zstd layer.v1.tar+zstd",
			"compression=uncompressed,force-compression=true":  "layer.v1.tar layer.v1.tar",
			"compression=gzip,oci-mediatypes=false,name=x/y:1": "",
		} {
			build("--output", "type=oci,dest=o.tar,"+options)
			target, m := indexOf(t, layoutOf(t, dir+"/o.tar"))
			if want == "" {
				if target.MediaType != "application/vnd.docker.distribution.manifest.v2+json" || m.Config.MediaType != "application/vnd.docker.container.image.v1+json" || m.Layers[0].MediaType != "application/vnd.docker.image.rootfs.diff.tar.gzip" {
					t.Errorf("%s: %+v %+v", options, target, m)
				}
				if target.Annotations["io.containerd.image.name"] != "docker.io/x/y:1" || target.Annotations["org.opencontainers.image.ref.name"] != "1" {
					t.Errorf("it is called %v", target.Annotations)
				}
			} else if got := strings.Join(layers(m), " "); got != want {
				t.Errorf("%s: %s, want %s", options, got, want)
			}
		}
		if text, err := r.try(t, dir, "buildx", "build", "--output", "type=oci,dest=o.tar,compression=lzma", "."); err == nil || !strings.Contains(text, "unsupported layer compression type: lzma") {
			t.Errorf("%v %s", err, text)
		}
	})
	t.Run("several", func(t *testing.T) {
		build("-f", "Files", "--output", "type=local,dest=one", "--output", "type=tar,dest=two.tar", "--output", "type=oci,dest=three,tar=false", "--output", "type=docker,dest=four.tar,name=example/four:1", "--output", "type=image,name=example/five", "--metadata-file", "meta")
		for _, name := range []string{"one/d/Dockerfile", "two.tar", "three/index.json", "four.tar", "meta"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
		_, m := indexOf(t, dir+"/three")
		var config struct{ OS string }
		blob(t, dir+"/three", m.Config.Digest, &config)
		if config.OS != "linux" || len(m.Layers) != 1 {
			t.Errorf("the layout has %+v", m)
		}
		if out := r.docker(t, dir, "load", "-i", "four.tar"); !strings.Contains(out, "Loaded image: example/four:1") {
			t.Error(out)
		}
		r.docker(t, dir, "image", "inspect", "example/five")
	})
	t.Run("push", func(t *testing.T) {
		host := registry(t, "")
		resp, err := connect(t, r.Daemon).Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: files(t, map[string]string{"Dockerfile": "FROM busybox\n"}),
			Exports: []client.ExportEntry{{Type: "image", Attrs: map[string]string{"name": host + "/team/digest", "push": "true", "push-by-digest": "true", "name-canonical": "true"}}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		pinned := host + "/team/digest@" + resp.ExporterResponse["containerimage.digest"]
		if names := resp.ExporterResponse["image.name"]; !strings.HasSuffix(names, ","+pinned) {
			t.Errorf("it is called %s", names)
		}
		r.docker(t, dir, "buildx", "imagetools", "inspect", pinned)
		if out, err := r.try(t, dir, "buildx", "imagetools", "inspect", host+"/team/digest"); err == nil {
			t.Errorf("what is pushed by its digest has a tag: %s", out)
		}
		build("--output", "type=image,name="+host+"/team/passing:1,push=true,store=false,compression=zstd,force-compression=true")
		if out, err := r.try(t, dir, "image", "inspect", host+"/team/passing:1"); err == nil {
			t.Errorf("it was not to be kept: %s", out)
		}
		if out := r.docker(t, dir, "buildx", "imagetools", "inspect", "--raw", host+"/team/passing:1"); !strings.Contains(out, "tar+zstd") {
			t.Errorf("pushed was %s", out)
		}
		build("--output", "type=image,name="+host+"/team/both:1,push=true", "--annotation", "manifest:who=us", "--annotation", "manifest-descriptor:n=o")
		if out := r.docker(t, dir, "buildx", "imagetools", "inspect", "--raw", host+"/team/both:1"); !strings.Contains(out, `"who":"us"`) && !strings.Contains(out, `"who": "us"`) {
			t.Errorf("pushed was %s", out)
		}
		if out, err := r.try(t, dir, "buildx", "build", "--output", "type=image,push=true", "."); err == nil || !strings.Contains(out, "tag is needed when pushing to registry") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("credentials", func(t *testing.T) {
		users := filepath.Join(t.TempDir(), "users")
		host := registry(t, "[auth]\nhtpasswd = \""+users+"\"\n"+password(t, users, "ann", "secret")+"[[auth.rule]]\nmatch = [\"**\"]\npull = [\"ann\"]\npush = [\"ann\"]\n")
		if out, err := r.try(t, dir, "buildx", "build", "--push", "-t", host+"/team/app", "."); err == nil || !strings.Contains(out, "failed to push "+host+"/team/app") {
			t.Errorf("without a password: %v %s", err, out)
		}
		r.docker(t, dir, "login", "-u", "ann", "-p", "secret", host)
		build("--push", "-t", host+"/team/app")
		r.docker(t, dir, "buildx", "imagetools", "inspect", host+"/team/app")
	})
}

// TestPlatforms builds for two platforms at once.
func TestPlatforms(t *testing.T) {
	r := newRig(t)
	dir := directory(t, map[string]string{"Dockerfile": "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETARCH\nRUN echo for $TARGETARCH > /made-$TARGETARCH\nFROM scratch\nCOPY --from=build /made* /\n",
		"arm":     "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\xb7\x00\x01" + strings.Repeat("\x00", 500),
		"Foreign": "FROM scratch\nCOPY --chmod=755 arm /bin/sh\nRUN never\n"})
	two := []string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1", "buildx", "build", "--platform", "linux/amd64,linux/arm64"}
	r.docker(t, dir, append(two, "--output", "type=local,dest=out", "--output", "type=oci,dest=two.tar", "-t", "example/two", ".")...)
	for _, arch := range []string{"amd64", "arm64"} {
		if text, err := os.ReadFile(dir + "/out/linux_" + arch + "/made-" + arch); err != nil || string(text) != "for "+arch+"\n" {
			t.Errorf("%v %s", err, text)
		}
	}
	if target, m := indexOf(t, layoutOf(t, dir+"/two.tar")); target.MediaType != "application/vnd.oci.image.index.v1+json" || len(m.Manifests) != 2 || m.Manifests[1].Platform.Architecture != "arm64" {
		t.Errorf("the index is %+v %+v", target, m)
	}
	r.docker(t, dir, append(two, "--output", "type=local,dest=flat,platform-split=false", ".")...)
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := os.Stat(dir + "/flat/made-" + arch); err != nil {
			t.Error(err)
		}
	}
	r.docker(t, dir, append(two, "-t", "example/two", ".")...)
	if out := r.docker(t, dir, "image", "ls", "--tree", "example/two"); !strings.Contains(out, "linux/amd64") || !strings.Contains(out, "linux/arm64") {
		t.Errorf("listed is %s", out)
	}
	r.docker(t, dir, append(two, "--output", "type=image,name=example/list,oci-mediatypes=false", ".")...)
	if out := r.docker(t, dir, "image", "ls", "--tree", "example/list"); !strings.Contains(out, "linux/amd64") || !strings.Contains(out, "linux/arm64") {
		t.Errorf("listed of Docker's list is %s", out)
	}
	if out := r.docker(t, dir, "image", "inspect", "-f", "{{.Descriptor.MediaType}}", "example/list"); out != "application/vnd.docker.distribution.manifest.list.v2+json" {
		t.Errorf("Docker's list is %s", out)
	}
	out, err := r.try(t, dir, "buildx", "build", "--platform", "linux/arm64", "-f", "Foreign", ".")
	if err == nil || !strings.Contains(out, "this machine does not run programs for linux/arm64") && !strings.Contains(out, "did not complete successfully") {
		t.Errorf("%v %s", err, out)
	}
	if out := r.docker(t, dir, "buildx", "inspect"); !strings.Contains(out, "linux/amd64") && !strings.Contains(out, "linux/arm64") {
		t.Errorf("the builder runs %s", out)
	}
}

// TestReproducible builds the same on two daemons that know nothing of each other.
func TestReproducible(t *testing.T) {
	var digests []string
	programs := sid.New(t).Programs(t, "docker")
	for _, at := range []string{"1600000000", "1600000000", "1500000000"} {
		d := daemon.Start(t)
		r := &rig{d, programs}
		busy := directory(t, map[string]string{"Dockerfile": "FROM scratch\nADD busybox.tar /\n"})
		if err := os.Link(daemon.Busybox(t), busy+"/busybox.tar"); err != nil {
			data, err := os.ReadFile(daemon.Busybox(t))
			if err == nil {
				err = os.WriteFile(busy+"/busybox.tar", data, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		dir := directory(t, map[string]string{"a/b": "x", "Dockerfile": "FROM base\nRUN mkdir /d && echo $(date) >/dev/null && echo x > /d/f\nCOPY a /a\nWORKDIR /w\nENV A=b\n"})
		for _, step := range [][]string{{"-t", "base", busy}, {"-t", "result", "--output", "type=oci,dest=o.tar,rewrite-timestamp=true", "--build-context", "base=docker-image://base", dir}} {
			r.docker(t, dir, append([]string{"BUILDX_NO_DEFAULT_ATTESTATIONS=1", "SOURCE_DATE_EPOCH=" + at, "buildx", "build"}, step...)...)
		}
		target, m := indexOf(t, layoutOf(t, dir+"/o.tar"))
		digests = append(digests, target.Digest)
		var config struct {
			Created string
			History []struct{ Created string }
		}
		blob(t, layoutOf(t, dir+"/o.tar"), m.Config.Digest, &config)
		if at == "1600000000" && (config.Created != "2020-09-13T12:26:40Z" || config.History[len(config.History)-1].Created != config.Created) {
			t.Errorf("made at %+v", config)
		}
	}
	if digests[0] != digests[1] || digests[0] == digests[2] {
		t.Errorf("the images are %v", digests)
	}
}
