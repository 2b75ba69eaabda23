package buildkit

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"

	"github.com/tarehq/tare/internal/testutil"
)

// TestHistoryAttachments has buildx look into builds that ended, by what is attached to
// their records: how they were made, what they told, why they failed.
func TestHistoryAttachments(t *testing.T) {
	r := newRig(t)
	dir := directory(t, map[string]string{"Dockerfile": "FROM busybox\nARG WHO\nRUN echo hello $WHO\nCOPY f /f\n", "f": "f", "Bad": "FROM busybox\nRUN echo broken >&2; exit 7\n"})
	look := func(args ...string) string {
		return r.docker(t, dir, append([]string{"buildx", "history"}, args...)...)
	}
	r.docker(t, dir, "buildx", "build", "--build-arg", "WHO=you", "-t", "made", ".")
	var about struct {
		Ref                 string
		BuildArgs           []struct{ Name, Value string }
		Materials           []struct{ URI string }
		Attachments         []struct{ Digest, Platform, Type string }
		NumCachedSteps      int
		ConfigSource, Error any
	}
	inspect := func() string {
		text := look("inspect", "--format", "json")
		about.Error = nil
		if err := json.Unmarshal([]byte(text), &about); err != nil {
			t.Fatal(err, text)
		}
		return text
	}
	text := inspect()
	if len(about.BuildArgs) != 1 || about.BuildArgs[0].Value != "you" || len(about.Materials) != 1 || !strings.HasPrefix(about.Materials[0].URI, "pkg:docker/busybox@") {
		t.Error(text)
	}
	var kinds []string
	for _, a := range about.Attachments {
		kinds = append(kinds, strings.TrimPrefix(a.Type, "application/vnd.oci.image.")+" "+a.Platform)
	}
	if got := strings.Join(kinds, ", "); !strings.Contains(got, "index.v1+json , https://slsa.dev/provenance/v1 , manifest.v1+json linux/") {
		t.Errorf("attached is %s", got)
	}
	var made struct{ BuildDefinition struct{ BuildType string } }
	if text := look("inspect", "attachment", "--type", "provenance"); json.Unmarshal([]byte(text), &made) != nil || made.BuildDefinition.BuildType == "" {
		t.Error(text)
	}
	for _, a := range about.Attachments {
		if text := look("inspect", "attachment", about.Ref, a.Digest); !strings.HasPrefix(text, "{") {
			t.Errorf("%s is %s", a.Type, text)
		}
	}
	look("export", "-o", "exported.dockerbuild")
	if n := blobsOf(t, dir+"/exported.dockerbuild"); n < 4 { // record, log, provenance, index
		t.Errorf("exported are %d blobs", n)
	}
	if text, err := r.try(t, dir, "buildx", "build", "-f", "Bad", "."); err == nil {
		t.Fatal(text)
	}
	if text := look("inspect"); !strings.Contains(text, "exit code: 7") || !strings.Contains(text, ">>> RUN echo broken") || !strings.Contains(text, "> broken") {
		t.Error(text)
	}
	blobs := r.Dir + "/data/build/history/blobs"
	if left, err := os.ReadDir(blobs); err != nil || len(left) == 0 {
		t.Errorf("%v in %s: %v", left, blobs, err)
	}
	look("rm", "--all")
	if left, err := os.ReadDir(blobs); err != nil || len(left) != 0 {
		t.Errorf("what belonged to no record stays: %v %v", left, err)
	}
}

// blobsOf counts the blobs of an exported record.
func blobsOf(t *testing.T, name string) (n int) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(h.Name, "blobs/sha256/") && h.Size > 0 {
			n++
		}
	}
}

// What goes on when the process that builds is told to end is cancelled, and remembered as
// that.
func TestRememberedAtEnd(t *testing.T) {
	r := newRig(t)
	dir := directory(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"})
	for _, end := range []func(){
		func() { _ = syscall.Kill(builderOf(t, r.Dir), syscall.SIGTERM) },
		func() { r.Signal(t, syscall.SIGTERM); r.Up(t) },
	} {
		ended := make(chan error, 1)
		go func() {
			_, err := r.try(t, dir, "buildx", "build", ".")
			ended <- err
		}()
		testutil.Eventually(t, testutil.Patience(time.Minute), "the step runs", func() bool {
			steps, err := filepath.Glob(r.Dir + "/exec/b/steps/build-*")
			return err == nil && len(steps) > 0
		})
		end()
		if err := <-ended; err == nil {
			t.Error("the build was not ended")
		}
		if text := r.docker(t, dir, "buildx", "history", "inspect"); !strings.Contains(text, "Canceled") {
			t.Errorf("remembered is %s", text)
		}
		r.docker(t, dir, "buildx", "history", "rm", "--all")
	}
}

// A build that was answered is remembered, though the process that builds is killed at
// once: as what it was, how it ended, and which image it made.
func TestRememberedWhenKilled(t *testing.T) {
	d, c := builder(t)
	want := map[string]string{} // by reference, what is remembered
	for i := range 6 {
		ref, line := identity.NewID(), []string{"RUN yes told | head -c 1900000", "RUN yes told | head -c 1900000; exit 7"}[i%2] // which is written last
		if _, err := c.ListWorkers(t.Context()); err != nil {
			t.Fatal(err)
		}
		pid := builderOf(t, d.Dir)
		resp, err := c.Solve(t.Context(), nil, client.SolveOpt{Ref: ref, Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"label:n": strconv.Itoa(i)},
			LocalMounts: files(t, map[string]string{"Dockerfile": "FROM busybox\n" + line + "\n"}),
			Exports:     []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "remembered"}}}}, nil)
		if kerr := syscall.Kill(pid, syscall.SIGKILL); kerr != nil {
			t.Fatal(kerr)
		}
		if err != nil {
			want[ref] = err.Error()
		} else {
			want[ref] = resp.ExporterResponse["containerimage.digest"]
		}
		c.Close()
		c = connect(t, d)
	}
	stream, err := c.ControlClient().ListenBuildHistory(t.Context(), &controlapi.BuildHistoryRequest{EarlyExit: true})
	if err != nil {
		t.Fatal(err)
	}
	for {
		e, err := stream.Recv()
		if err != nil {
			break
		}
		text := e.Record.ExporterResponse["containerimage.digest"] + e.Record.Error.GetMessage()
		if was := want[e.Record.Ref]; was == "" || text == "" || !strings.HasSuffix(was, text) || e.Record.CompletedAt == nil {
			t.Errorf("remembered is %s, want %s", text, was)
		}
		if image := e.Record.GetResult().GetResultDeprecated().GetDigest(); e.Record.Error == nil && image != text {
			t.Errorf("the image remembered is %s, want %s", image, text)
		}
		if _, err := c.ControlClient().Status(t.Context(), &controlapi.StatusRequest{Ref: e.Record.Ref}); err != nil {
			t.Error(err)
		}
		delete(want, e.Record.Ref)
	}
	if len(want) > 0 {
		t.Errorf("forgotten are %v", want)
	}
}

// builderOf finds the process that builds for the daemon in a directory.
func builderOf(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if pid, aerr := strconv.Atoi(e.Name()); err == nil && aerr == nil && strings.Contains(string(line), "/tare-build\x00--dir\x00"+dir+"/") {
			return pid
		}
	}
	t.Fatal("nobody builds")
	return 0
}
