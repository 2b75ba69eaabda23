package buildkit

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/solver/pb"
)

const (
	tiny     = "./test/buildkit/testdata/tiny"
	tinyCaps = `LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests"`
)

// TestFrontEnd builds with a front end that is an image: named by the file, by a
// build argument, by the client, and by a client that lends a definition.
func TestFrontEnd(t *testing.T) {
	d, c := builder(t)
	image(t, d, "example/tiny:1", tiny, tinyCaps)
	tree := map[string]string{"Dockerfile": "# syntax=example/tiny:1\nFROM busybox\nRUN echo made by tiny > /made\nFILE /file text\n",
		"Plain": "FROM busybox\nRUN echo plain > /made\n"}
	for name, attrs := range map[string]map[string]string{
		"the file's":     {},
		"an argument's":  {"build-arg:BUILDKIT_SYNTAX": "example/tiny:1", "filename": "Plain"},
		"the client's":   {"source": "example/tiny:1", "filename": "Plain"},
		"without caches": {"no-cache": ""},
	} {
		t.Run(name, func(t *testing.T) {
			kind := "dockerfile.v0"
			if attrs["source"] != "" {
				kind = "gateway.v0"
			}
			attrs["build-arg:WHO"] = "you"
			ch, told := output()
			_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: kind, FrontendAttrs: attrs, LocalMounts: files(t, tree),
				Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "result"}}}}, ch)
			text := told()
			if err != nil || !strings.Contains(text, "tiny: echo") {
				t.Fatalf("%v\n%s", err, text)
			}
			if got := d.Tare(t, "image", "inspect", "--format", "{{.Config.Labels.language}}", "result"); got != "tiny you" {
				t.Errorf("its label is %q", got)
			}
			if got := d.Tare(t, "run", "--rm", "result", "cat", "/made"); got != "made by tiny" && got != "plain" {
				t.Errorf("it has %q", got)
			}
		})
	}
	t.Run("inputs", func(t *testing.T) {
		def, err := llb.Scratch().File(llb.Mkfile("Dockerfile", 0o644, []byte("FROM busybox\nFILE /from input\n"))).Marshal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		ch, told := output()
		if _, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": "example/tiny:1"},
			FrontendInputs: map[string]llb.State{"dockerfile": state(t, def)}, Exports: []client.ExportEntry{{Type: "local", OutputDir: dir}}}, ch); err != nil {
			t.Fatal(err, told())
		}
		if text, err := os.ReadFile(dir + "/from"); err != nil || string(text) != "input" {
			t.Errorf("%q %v", text, err)
		}
	})
	t.Run("container", func(t *testing.T) {
		dir := t.TempDir()
		ch, told := output()
		_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": "example/tiny:1", "build-arg:DOES": "show"},
			Exports: []client.ExportEntry{{Type: "local", OutputDir: dir}}}, ch)
		if err != nil {
			t.Fatal(err, told())
		}
		for name, want := range map[string]string{"interfaces": "eth0:", "status": "Seccomp:\t2"} {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(text), want) {
				t.Errorf("%s: %v %s", name, err, text)
			}
		}
		var def pb.Definition
		text, err := os.ReadFile(dir + "/definition")
		if err != nil || def.UnmarshalVT(text) != nil || !strings.Contains(string(text), "docker.io/example/tiny:1@sha256:") {
			t.Errorf("its definition: %v %q", err, text)
		}
	})
}

func state(t *testing.T, def *llb.Definition) llb.State {
	t.Helper()
	op, err := llb.NewDefinitionOp(def.ToPB())
	if err != nil {
		t.Fatal(err)
	}
	return llb.NewState(op)
}

// TestHostileFrontEnd has front ends do what they should not. Each ends with a
// clear error, and the builder builds on.
func TestHostileFrontEnd(t *testing.T) {
	d, c := builder(t)
	image(t, d, "example/tiny:1", tiny, tinyCaps)
	image(t, d, "example/tiny:incapable", tiny)
	image(t, d, "example/tiny:offline", tiny, "LABEL moby.buildkit.frontend.network.none=true")
	solve := func(ctx context.Context, attrs map[string]string, o ...client.ExportEntry) (string, error) {
		ch, told := output()
		_, err := c.Solve(ctx, nil, client.SolveOpt{Frontend: "gateway.v0", FrontendAttrs: attrs, Exports: o, LocalMounts: files(t, map[string]string{"Dockerfile": "FROM busybox\n"})}, ch)
		return told(), err
	}
	for does, want := range map[string]string{
		"die":                "the front end example/tiny:1 ended with exit code: 7: tiny has had enough",
		"leave":              "the front end example/tiny:1 ended without a result",
		"linger":             "an error of its own",
		"babble":             "the front end example/tiny:1 does not speak the gateway's protocol",
		"call itself":        "is called by 8 others",
		"insecure":           "security.insecure is not allowed",
		"host":               "network.host is not allowed",
		"insecure container": "security.insecure is not allowed",
		"many containers":    "containers beside its steps: release some of them",
	} {
		t.Run(does, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			text, err := solve(ctx, map[string]string{"source": "example/tiny:1", "build-arg:DOES": does})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q\n%s", err, want, text)
			}
		})
	}
	t.Run("hang", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		group := d.Cgroup + "/of-front-ends" // which is the client's to remove
		defer func() {
			for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
				dirs, _ := filepath.Glob(pattern + group)
				for _, dir := range dirs {
					_ = os.Remove(dir)
				}
			}
		}()
		ch, ended := make(chan *client.SolveStatus), make(chan error, 1)
		go func() {
			_, err := c.Solve(ctx, nil, client.SolveOpt{Frontend: "gateway.v0", FrontendAttrs: map[string]string{"source": "example/tiny:1", "build-arg:DOES": "hang", "cgroup-parent": group}}, ch)
			ended <- err
		}()
		for s := range ch {
			for _, l := range s.Logs {
				if strings.Contains(string(l.Data), "tiny hangs") {
					if v1, _ := filepath.Glob("/sys/fs/cgroup/*" + group + "/build-*"); len(v1) == 0 {
						if v2, _ := filepath.Glob("/sys/fs/cgroup" + group + "/build-*"); len(v2) == 0 {
							t.Error("the front end is not in the group that the client names: " + group)
						}
					}
					cancel()
				}
			}
		}
		if err := <-ended; err == nil || ctx.Err() == nil {
			t.Errorf("%v", err)
		}
	})
	t.Run("incapable", func(t *testing.T) {
		text, err := solve(t.Context(), map[string]string{"source": "example/tiny:incapable", "frontend.caps": "moby.buildkit.frontend.subrequests"})
		if err == nil || !strings.Contains(err.Error(), "unsupported frontend capability moby.buildkit.frontend.subrequests") {
			t.Errorf("%v\n%s", err, text)
		}
	})
	t.Run("offline", func(t *testing.T) {
		dir := t.TempDir()
		text, err := solve(t.Context(), map[string]string{"source": "example/tiny:offline", "build-arg:DOES": "show"}, client.ExportEntry{Type: "local", OutputDir: dir})
		if err != nil {
			t.Fatal(err, text)
		}
		if text, err := os.ReadFile(dir + "/interfaces"); err != nil || strings.Contains(string(text), "eth0") {
			t.Errorf("%v %s", err, text)
		}
	})
	if text, err := solve(t.Context(), map[string]string{"source": "example/tiny:1"}); err != nil {
		t.Errorf("afterwards: %v\n%s", err, text)
	}
}

// TestDockerfileFrontEnd has BuildKit's own front end as an image in a registry,
// which a file asks for, and a pinned name of Docker's.
func TestDockerfileFrontEnd(t *testing.T) {
	d, c := builder(t)
	name := registry(t, "") + "/language/dockerfile:1"
	image(t, d, name, "github.com/moby/buildkit/frontend/dockerfile/cmd/dockerfile-frontend", `LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts"`)
	d.Tare(t, "push", name)
	d.Tare(t, "rmi", name)
	solve := func(syntax string) string {
		t.Helper()
		ch, told := output()
		_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", LocalMounts: files(t, map[string]string{
			"Dockerfile": "# syntax=" + syntax + "\nFROM busybox AS base\nRUN <<EOT sh\necho heredoc > /made\nEOT\nFROM base\nCOPY --from=base /made /copied/\nCOPY Dockerfile /\n"}),
			Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "result"}}}}, ch)
		text := told()
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return text
	}
	text := solve(name)
	if !strings.Contains(text, "vertex docker-image://"+name+"@sha256:") || !strings.Contains(text, "vertex [base 2/2] RUN <<EOT sh") {
		t.Errorf("told was\n%s", text)
	}
	if got := d.Tare(t, "run", "--rm", "result", "cat", "/copied/made"); got != "heredoc" {
		t.Errorf("it has %q", got)
	}
	for _, own := range []string{"docker/dockerfile:1", "docker/dockerfile:1.4", "docker.io/docker/dockerfile:1-labs"} {
		if text := solve(own); !strings.Contains(text, "[internal] front end "+own+" is built in") {
			t.Errorf("of %s was told\n%s", own, text)
		}
	}
	// Who has a certain version here means that one, a moving name is ours.
	d.Tare(t, "pull", name)
	for _, tag := range []string{"1", "1.4"} {
		d.Tare(t, "tag", name, "docker/dockerfile:"+tag)
	}
	if text := solve("docker/dockerfile:1.4"); strings.Contains(text, "is built in") || !strings.Contains(text, "vertex docker-image://docker.io/docker/dockerfile:1.4@sha256:") {
		t.Errorf("of one that is here was told\n%s", text)
	}
	if text := solve("docker/dockerfile:1"); !strings.Contains(text, "is built in") {
		t.Errorf("of a moving name was told\n%s", text)
	}
}
