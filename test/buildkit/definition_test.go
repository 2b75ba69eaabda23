package buildkit

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/llbbuild"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/tonistiigi/fsutil"
)

// definition is a state as it would be sent, in bytes.
func definition(t *testing.T, s llb.State) []byte {
	t.Helper()
	def, err := s.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := llb.WriteTo(def, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// solveTo solves a state with files that the client lends, and returns where its
// own are.
func solveTo(t *testing.T, c *client.Client, s llb.State, lent map[string]string) (dir, told string, err error) {
	t.Helper()
	def, err := s.Marshal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := fsutil.NewFS(write(t, t.TempDir(), lent))
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	ch, text := output()
	_, err = c.Solve(t.Context(), def, client.SolveOpt{LocalMounts: map[string]fsutil.FS{"lent": tree}, Exports: []client.ExportEntry{{Type: "local", OutputDir: dir}}}, ch)
	return dir, text(), err
}

// TestDefinitionInFile has builds whose definitions lie in files that builds make or clients
// lend.
func TestDefinitionInFile(t *testing.T) {
	_, c := builder(t)
	shell := func(line string) llb.State {
		return llb.Image("busybox").Run(llb.Args([]string{"sh", "-c", line})).Root()
	}
	inner := llb.Scratch().File(llb.Copy(shell("echo inner > /made"), "/made", "/made"))
	file := func(s llb.State) llb.State {
		return llb.Scratch().File(llb.Mkfile("/"+pb.LLBDefaultDefinitionFile, 0o644, definition(t, s)))
	}
	outer := file(inner).With(llbbuild.Build())
	for name, s := range map[string]llb.State{
		"made":      outer,
		"in a step": llb.Scratch().File(llb.Copy(outer, "/made", "/made")),
		"in it":     file(outer).With(llbbuild.Build()),
		"lent":      llb.Local("lent").With(llbbuild.Build(llbbuild.WithFilename("dir/def"))),
	} {
		t.Run(name, func(t *testing.T) {
			dir, told, err := solveTo(t, c, s, map[string]string{"dir/def": string(definition(t, inner))})
			if text, _ := os.ReadFile(dir + "/made"); err != nil || string(text) != "inner\n" {
				t.Errorf("%v, %q\n%s", err, text, told)
			}
		})
	}
	self := llb.Local("lent").With(llbbuild.Build(llbbuild.WithFilename("def")))
	deep := inner
	for range 12 {
		deep = file(deep).With(llbbuild.Build())
	}
	for name, x := range map[string]struct {
		state llb.State
		lent  map[string]string
		want  string
	}{
		"itself":   {self, map[string]string{"def": string(definition(t, self))}, "a build operation builds itself"},
		"too deep": {deep, nil, "that is too many"},
		"missing":  {self, nil, "no such file"},
		"damaged":  {self, map[string]string{"def": "\xff\xff"}, "is damaged"},
		"no file":  {self, map[string]string{"def/x": ""}, "is no regular file"},
		"large":    {self, map[string]string{"def": strings.Repeat("x", 17<<20)}, "has more than"},
		"fails":    {file(shell("exit 7")).With(llbbuild.Build()), nil, "exit code: 7"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := solveTo(t, c, x.state, x.lent); err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v, want %s", err, x.want)
			}
		})
	}
}

// TestLimitsOfFrontEnd has the front end ask for limits of memory and processors for the
// steps, as the newest clients do.
func TestLimitsOfFrontEnd(t *testing.T) {
	_, c := builder(t)
	const file = "FROM busybox\nRUN cd /sys/fs/cgroup; if test -e memory.max; then cat memory.max; echo $(cat cpu.max); else cat memory/memory.limit_in_bytes; echo $(cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us); fi; grep Cpus_allowed_list /proc/self/status\n"
	solve := func(attrs map[string]string) (string, error) {
		attrs["no-cache"] = ""
		ch, told := output()
		_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attrs, LocalMounts: files(t, map[string]string{"Dockerfile": file})}, ch)
		return told(), err
	}
	text, err := solve(map[string]string{"memory": "67108864", "cpuperiod": "50000", "cpuquota": "20000", "cpusetcpus": "0"})
	if err != nil || !strings.Contains(text, "67108864\n20000 50000\nCpus_allowed_list:\t0\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := solve(map[string]string{}); err != nil || strings.Contains(text, "67108864") || strings.Contains(text, "20000 50000") {
		t.Errorf("without limits: %v\n%s", err, text)
	}
	if text, err := solve(map[string]string{"memory": "100"}); err == nil || !strings.Contains(err.Error(), "Minimum memory limit allowed is 6MB") {
		t.Errorf("with too little: %v\n%s", err, text)
	}
}

// TestCapabilities holds what is advertised to what is done: what is not is refused by name.
func TestCapabilities(t *testing.T) {
	_, c := builder(t)
	_, err := c.Build(t.Context(), client.SolveOpt{}, "test", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		caps := g.BuildOpts().LLBCaps
		for _, id := range []apicaps.CapID{pb.CapMergeOp, pb.CapDiffOp, pb.CapPassthroughOp, pb.CapBuildOpLLBFileName, pb.CapFileSymlinkCreate, pb.CapExecMetaLinuxResources, pb.CapSourceGitFetchByCommit} {
			if err := caps.Supports(id); err != nil {
				t.Error(err)
			}
		}
		for _, id := range []apicaps.CapID{pb.CapSourcePolicy, pb.CapSourceGitBundle, pb.CapSourceHTTPSignatureVerify, pb.CapSourceImageBlob, pb.CapRemoteCacheGHA} {
			if err := caps.Supports(id); err == nil {
				t.Errorf("%s is advertised", id)
			}
			def, err := llb.Image("busybox").Marshal(ctx)
			if err != nil {
				return nil, err
			}
			asks := def.ToPB()
			for _, m := range asks.Metadata {
				m.Caps = map[string]bool{string(id): true}
			}
			if _, err := g.Solve(ctx, gateway.SolveRequest{Definition: asks, Evaluate: true}); err == nil || !strings.Contains(err.Error(), string(id)) {
				t.Errorf("who asks for %s is told %v", id, err)
			}
		}
		return gateway.NewResult(), nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// TestFileOperations has each action of a file operation that the Dockerfile does not
// have on its own.
func TestFileOperations(t *testing.T) {
	_, c := builder(t)
	s := llb.Scratch().File(llb.Mkdir("/d/deep", 0o711, llb.WithParents(true)).Mkfile("/d/file", 0o640, []byte("text"), llb.WithUIDGID(3, 4)).
		Symlink("file", "/d/link").Mkfile("/d/gone", 0o600, nil).Rm("/d/g*", llb.WithAllowWildcard(true)).Rm("/nosuch", llb.WithAllowNotFound(true)))
	dir, told, err := solveTo(t, c, s, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, told)
	}
	if to, err := os.Readlink(filepath.Join(dir, "d/link")); err != nil || to != "file" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "d/file")); err != nil || info.Mode() != 0o640 || info.Size() != 4 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "d/deep")); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("the directory is %v, %v", info, err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "d")); err != nil || len(list) != 3 {
		t.Errorf("there are %v, %v", list, err)
	}
	if _, _, err := solveTo(t, c, s.File(llb.Rm("/d/nosuch")), nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("what is not there was removed: %v", err)
	}
}
