package buildkit

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
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
