package compat

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/tonistiigi/fsutil"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// builder is BuildKit's own client at a daemon that has busybox.
func builder(t *testing.T) (*daemon.Daemon, *client.Client) {
	t.Helper()
	testutil.RequireRoot(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	c, err := client.New(t.Context(), d.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return d, c
}

// files makes a directory of files, to lend to a build.
func files(t *testing.T, list map[string]string) fsutil.FS {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// output collects what the steps print.
func output() (chan *client.SolveStatus, func() string) {
	ch, done := make(chan *client.SolveStatus), make(chan struct{})
	var text bytes.Buffer
	go func() {
		defer close(done)
		for s := range ch {
			for _, l := range s.Logs {
				text.Write(l.Data)
			}
		}
	}()
	return ch, func() string { <-done; return text.String() }
}

const dockerfile = `FROM busybox AS base
ARG WHO
RUN --mount=type=secret,id=s echo hello $WHO $(cat /run/secrets/s) && echo made > /made
FROM scratch AS out
COPY --from=base /made /dir/made
FROM base AS failing
RUN echo before; exit 4
`

func TestBuildKitClient(t *testing.T) {
	d, c := builder(t)
	tree := files(t, map[string]string{"Dockerfile": dockerfile})
	solve := func(attrs map[string]string, o client.ExportEntry) (string, *client.SolveResponse, error) {
		ch, text := output()
		resp, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attrs, Exports: []client.ExportEntry{o},
			LocalMounts: map[string]fsutil.FS{"context": tree, "dockerfile": tree},
			Session:     []session.Attachable{secretsprovider.FromMap(map[string][]byte{"s": []byte("hidden")})}}, ch)
		return text(), resp, err
	}
	t.Run("image", func(t *testing.T) {
		text, resp, err := solve(map[string]string{"target": "base", "build-arg:WHO": "you", "label:a": "b"}, client.ExportEntry{Type: "moby", Attrs: map[string]string{"name": "kit:1,kit:2"}})
		if err != nil || !strings.Contains(text, "hello you hidden") {
			t.Fatalf("%v: %s", err, text)
		}
		got := d.Tare(t, "image", "inspect", "--format", `{{.Id}} {{index .Config.Labels "a"}}`, "kit:2")
		if want := resp.ExporterResponse["containerimage.digest"] + " b"; strings.TrimSpace(got) != want {
			t.Errorf("the image is %s, want %s", got, want)
		}
	})
	t.Run("local", func(t *testing.T) {
		dir := t.TempDir()
		if _, _, err := solve(map[string]string{"target": "out"}, client.ExportEntry{Type: "local", OutputDir: dir}); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "dir/made")); err != nil || string(text) != "made\n" {
			t.Errorf("%q, %v", text, err)
		}
	})
	t.Run("error", func(t *testing.T) {
		_, _, err := solve(map[string]string{"target": "failing"}, client.ExportEntry{Type: "moby"})
		if err == nil || !strings.Contains(err.Error(), `process "/bin/sh -c echo before; exit 4" did not complete successfully: exit code: 4`) {
			t.Fatal(err)
		}
		var vertex *errdefs.VertexError
		sources := errdefs.Sources(err)
		if len(sources) != 1 || sources[0].Ranges[0].Start.Line != 7 || sources[0].Info.Filename != "Dockerfile" || !errors.As(err, &vertex) {
			t.Errorf("the error does not say where: %v", sources)
		}
	})
	t.Run("history", func(t *testing.T) {
		stream, err := c.ControlClient().ListenBuildHistory(t.Context(), &controlapi.BuildHistoryRequest{EarlyExit: true})
		if err != nil {
			t.Fatal(err)
		}
		var states []string
		for {
			e, err := stream.Recv()
			if err != nil {
				break
			}
			states = append(states, e.Record.FrontendAttrs["target"]+":"+e.Record.Error.GetMessage())
		}
		if len(states) != 3 || !strings.HasPrefix(states[0], "failing:process") || states[2] != "base:" {
			t.Errorf("remembered are %q", states)
		}
	})
}

// A client that is the front end: it solves, looks at results, and returns one.
func TestBuildKitGateway(t *testing.T) {
	_, c := builder(t)
	dir := t.TempDir()
	_, err := c.Build(t.Context(), client.SolveOpt{Exports: []client.ExportEntry{{Type: "local", OutputDir: dir}}}, "test", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.Image("busybox").Run(llb.Shlex("sh -c 'mkdir /d && echo 12345 > /d/f'")).Root().Marshal(ctx)
		if err != nil {
			return nil, err
		}
		r, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
		if err != nil {
			return nil, err
		}
		ref, err := r.SingleRef()
		if err != nil {
			return nil, err
		}
		part, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: "/d/f", Range: &gateway.FileRange{Offset: 1, Length: 3}})
		if err != nil || string(part) != "234" {
			t.Errorf("read %q, %v", part, err)
		}
		list, err := ref.ReadDir(ctx, gateway.ReadDirRequest{Path: "/d"})
		if err != nil || len(list) != 1 || list[0].Path != "f" {
			t.Errorf("listed %v, %v", list, err)
		}
		st, err := ref.StatFile(ctx, gateway.StatRequest{Path: "/d"})
		if err != nil || os.FileMode(st.Mode)&os.ModeDir == 0 {
			t.Errorf("stat %v, %v", st, err)
		}
		if _, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: "/nosuch"}); err == nil {
			t.Error("a file was read that is not there")
		}
		def, err = llb.Scratch().File(llb.Mkfile("/out", 0o644, part)).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		return g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(text) != "234" {
		t.Errorf("%q, %v", text, err)
	}
}
