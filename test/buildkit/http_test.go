package buildkit

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

// TestAddress has a build add what a web server has: what it is to be, that it is asked for
// again only as far as it changed, and a file of it as a context by name.
func TestAddress(t *testing.T) {
	_, c := builder(t)
	var text atomic.Value
	text.Store("first")
	var sent atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := text.Load().(string)
		tag := `"` + digest.FromString(body).Encoded() + `"`
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/file", http.StatusFound)
		case r.URL.Path != "/file":
			http.NotFound(w, r)
		case r.Header.Get("If-None-Match") == tag:
			w.WriteHeader(http.StatusNotModified)
		default:
			sent.Add(1)
			w.Header().Set("ETag", tag)
			fmt.Fprint(w, body)
		}
	}))
	defer server.Close()
	build := func(line string, attrs map[string]string) (string, error) {
		out := t.TempDir()
		_, err := c.Solve(t.Context(), nil, client.SolveOpt{Frontend: "dockerfile.v0", FrontendAttrs: attrs,
			LocalMounts: files(t, map[string]string{"Dockerfile": "FROM scratch\n" + strings.ReplaceAll(line, "URL", server.URL) + "\n"}),
			Exports:     []client.ExportEntry{{Type: "local", OutputDir: out}}}, nil)
		got, _ := os.ReadFile(out + "/got")
		return string(got), err
	}
	first := digest.FromString("first")
	for line, want := range map[string]string{
		"ADD URL/file /got": "first", "ADD URL/moved /got": "first", "ADD --checksum=" + first.String() + " URL/file /got": "first",
		"ADD --checksum=" + digest.SHA512.FromString("first").String() + " URL/file /got": "first",
	} {
		if got, err := build(line, map[string]string{}); err != nil || got != want {
			t.Errorf("%s: %v, %q", line, err, got)
		}
	}
	for line, want := range map[string]string{
		"ADD --checksum=" + digest.FromString("other").String() + " URL/file /got": "digest mismatch " + first.String() + ": " + digest.FromString("other").String(),
		"ADD --checksum=sha256:x URL/file /got":                                    "invalid checksum digest",
		"ADD URL/nosuch /got":                                                      "invalid response status 404",
		"ADD --checksum=" + first.String() + " Dockerfile /got":                    "checksum",
	} {
		if got, err := build(line, map[string]string{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %q", line, err, got)
		}
	}
	before := sent.Load()
	if got, err := build("ADD URL/file /got", map[string]string{}); err != nil || got != "first" || sent.Load() != before {
		t.Errorf("of what was here already %d were sent: %v, %q", sent.Load()-before, err, got)
	}
	text.Store("second")
	if got, err := build("ADD URL/file /got", map[string]string{}); err != nil || got != "second" {
		t.Errorf("what changed: %v, %q", err, got)
	}
	if got, err := build("ADD --checksum="+first.String()+" URL/file /got", map[string]string{}); err == nil {
		t.Errorf("what is no longer what it was: %q", got)
	}
	if got, err := build("COPY --from=more context /got", map[string]string{"context:more": server.URL + "/file"}); err != nil || got != "second" {
		t.Errorf("a file as a context: %v, %q", err, got)
	}
}

// TestHostileNames has a client call what it lends, and what its steps keep, by names that
// would lead out of where those lie: they are names, and lead nowhere.
func TestHostileNames(t *testing.T) {
	d, c := builder(t)
	host := t.TempDir()
	write(t, host, map[string]string{"sentinel": "kept"})
	for _, name := range []string{"../../../../../.." + host, host, "..", ".", "a/../../b", "\x00", "-v", strings.Repeat("x", 5000)} {
		tree := files(t, map[string]string{"file": "text"})["context"]
		lent := llb.Local(name, llb.SharedKeyHint(name))
		s := llb.Scratch().File(llb.Copy(lent, "file", "/made")).Run(llb.Args([]string{"/bin/busybox", "cp", "/made", "/cache/got"}), llb.AddMount("/bin", llb.Image("busybox"), llb.SourcePath("/bin"), llb.Readonly),
			llb.AddMount("/cache", llb.Scratch(), llb.AsPersistentCacheDir(name, llb.CacheMountShared))).Root()
		s = s.Run(llb.Args([]string{"/bin/busybox", "cp", "/cache/got", "/got"}), llb.AddMount("/bin", llb.Image("busybox"), llb.SourcePath("/bin"), llb.Readonly),
			llb.AddMount("/cache", llb.Scratch(), llb.AsPersistentCacheDir(name, llb.CacheMountShared))).Root()
		def, err := s.Marshal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		_, err = c.Solve(t.Context(), def, client.SolveOpt{LocalMounts: map[string]fsutil.FS{name: tree}, Exports: []client.ExportEntry{{Type: "local", OutputDir: out}}}, nil)
		if got, _ := os.ReadFile(out + "/got"); err == nil && string(got) != "text" {
			t.Errorf("%q: %q", name, got)
		}
	}
	if list, err := os.ReadDir(host); err != nil || len(list) != 1 {
		t.Errorf("there are %v, %v", list, err)
	}
	if got := d.Tare(t, "build", "-q", "-o", t.TempDir(), write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})); got != "" {
		t.Errorf("afterwards a build says %q", got)
	}
}
