package compat

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// COPY --link makes a layer that no base is part of: on another base it is found in
// the cache and has the same bytes, and the history has one entry for it.
func TestLink(t *testing.T) {
	const text = "FROM BASE\nCOPY --link file /etc/deep/file\nRUN cat /etc/deep/file > /read\n"
	b := newCaching(t, map[string]string{"Dockerfile": strings.Replace(text, "BASE", "busybox", 1), "file": "linked"})
	if _, _, _, err := b.solve(t, client.SolveOpt{Exports: image("one")}); err != nil {
		t.Fatal(err)
	}
	if id := b.d.Tare(t, "run", "-d", "--name", "changing", "busybox", "sh", "-c", "mkdir -m 700 /etc/deep; echo other > /etc/deep/other"); id == "" {
		t.Fatal("no container")
	}
	b.d.Tare(t, "wait", "changing")
	b.d.Tare(t, "commit", "changing", "other")
	b.tree = files(t, map[string]string{"Dockerfile": strings.Replace(text, "BASE", "other", 1), "file": "linked"})
	_, cached, _, err := b.solve(t, client.SolveOpt{Exports: image("two")})
	if err != nil || len(cached) == 0 || !strings.Contains(cached[0], "COPY --link") {
		t.Fatalf("%v: cached are %q", err, cached)
	}
	var one, two []string
	for name, to := range map[string]*[]string{"one": &one, "two": &two} {
		if err := json.Unmarshal([]byte(layersOf(t, b.d, name)), to); err != nil {
			t.Fatal(err)
		}
	}
	if len(one) != 3 || len(two) != 4 || one[1] != two[2] {
		t.Errorf("the layers are %q and %q", one, two)
	}
	if got := b.d.Tare(t, "run", "--rm", "two", "sh", "-c", "cat /read /etc/deep/file /etc/deep/other; stat -c %a /etc/deep"); got != "linkedlinkedother\n755" {
		t.Errorf("it has %q", got)
	}
	if got := b.d.Tare(t, "image", "history", "--format", "{{.CreatedBy}}", "two"); strings.Count(got, "COPY file /etc/deep/file # buildkit") != 1 {
		t.Errorf("the history is %s", got)
	}
}

// Merges and differences of trees are those of BuildKit.
func TestMergeAndDiff(t *testing.T) {
	d, c := builder(t)
	base := llb.Image("busybox")
	sh := func(s llb.State, line string) llb.State { return s.Run(llb.Args([]string{"sh", "-c", line})).Root() }
	a := sh(base, "echo a > /a; echo both > /both; rm /etc/passwd")
	b := sh(base, "echo b > /b; echo later > /both")
	sibling := llb.Diff(a, b)                   // made of trees
	own := llb.Diff(base, sh(a, "echo x > /x")) // two layers, the second on the first
	for name, s := range map[string]struct {
		state llb.State
		line  string
		want  string
	}{
		"merge":   {llb.Merge([]llb.State{a, llb.Diff(base, b)}), "cat /a /b /both; ls /etc/passwd 2>&1", "a\nb\nlater\nls: /etc/passwd: No such file or directory"},
		"diff":    {llb.Merge([]llb.State{base, own}), "cat /a /x; ls /etc/passwd 2>&1", "a\nx\nls: /etc/passwd: No such file or directory"},
		"sibling": {llb.Merge([]llb.State{a, sibling}), "cat /b /both; ls /a 2>&1", "b\nlater\nls: /a: No such file or directory"},
		"rm":      {llb.Merge([]llb.State{base.File(llb.Mkdir("/d", 0o700)), llb.Scratch().File(llb.Mkdir("/d", 0o755).Mkfile("/d/f", 0o600, []byte("f")))}), "cat /d/f", "f"},
	} {
		t.Run(name, func(t *testing.T) {
			run := s.state.Run(llb.Args([]string{"sh", "-c", "{ " + s.line + "; } > /out || true"}), llb.AddEnv("N", name)).Root()
			def, err := run.Marshal(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if _, err := c.Solve(t.Context(), def, client.SolveOpt{Exports: []client.ExportEntry{{Type: "local", OutputDir: dir}}}, nil); err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(dir + "/out"); err != nil || strings.TrimSpace(string(text)) != s.want {
				t.Errorf("%q, %v; want %q", text, err, s.want)
			}
			// As an image it is the same, and its layers are whole.
			def, err = s.state.Marshal(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Solve(t.Context(), def, client.SolveOpt{Exports: image("merged-" + name)}, nil); err != nil {
				t.Fatal(err)
			}
			d.Tare(t, "save", "-o", dir+"/saved.tar", "merged-"+name)
			if got := d.Tare(t, "run", "--rm", "merged-"+name, "sh", "-c", s.line+" || true"); got != s.want {
				t.Errorf("the image has %q, want %q", got, s.want)
			}
		})
	}
}

// An image in a directory of the client's is a context, by its digest.
func TestLayoutContext(t *testing.T) {
	b := newCaching(t, map[string]string{"Dockerfile": "FROM base\nRUN cat /mark > /seen\n"})
	dir := t.TempDir()
	store, err := local.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	target := save(t, b.d, store)
	attrs := map[string]string{"context:base": "oci-layout://laid@" + target.String()}
	_, _, _, err = b.solve(t, client.SolveOpt{Exports: image("laid"), FrontendAttrs: attrs, OCIStores: map[string]content.Store{"laid": store}})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.d.Tare(t, "run", "--rm", "laid", "cat", "/seen"); got != "marked" {
		t.Errorf("the image has %q", got)
	}
	attrs["context:base"] = "oci-layout://laid@" + digest.FromString("nothing").String()
	if _, _, _, err = b.solve(t, client.SolveOpt{FrontendAttrs: attrs, OCIStores: map[string]content.Store{"laid": store}}); err == nil {
		t.Error("an image that is not there was found")
	}
}

// save puts an image with the file /mark into a store, and forgets it.
func save(t *testing.T, d *daemon.Daemon, store content.Store) digest.Digest {
	t.Helper()
	d.Tare(t, "run", "--name", "marking", "busybox", "sh", "-c", "echo marked > /mark")
	d.Tare(t, "commit", "marking", "marked")
	d.Tare(t, "rm", "marking")
	dir := t.TempDir()
	d.Tare(t, "save", "-o", dir+"/x.tar", "marked")
	d.Tare(t, "rmi", "marked")
	if out, err := exec.Command("tar", "-C", dir, "-xf", dir+"/x.tar").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var index ocispec.Index
	text, err := os.ReadFile(dir + "/index.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir+"/blobs/sha256", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return content.WriteBlob(t.Context(), store, e.Name(), f, ocispec.Descriptor{Digest: digest.NewDigestFromEncoded(digest.SHA256, e.Name()), Size: info.Size()})
	})
	if err != nil {
		t.Fatal(err)
	}
	return index.Manifests[0].Digest
}

// Of a base at a registry only what it is comes, until something needs its files.
func TestBaseByNeed(t *testing.T) {
	b := newCaching(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	reg := strings.TrimPrefix(serve(t, "[storage]\nroot = \""+t.TempDir()+"\"\n"), "http://")
	base := reg + "/base:1"
	b.d.Tare(t, "tag", "busybox", base)
	b.d.Tare(t, "push", base)
	d := daemon.Start(t)
	c, err := client.New(t.Context(), d.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	other := &caching{d, c, files(t, map[string]string{"Dockerfile": "FROM " + base + "\nLABEL a=b\n"})}
	fetched := func() (n int64) {
		err := filepath.WalkDir(filepath.Join(other.d.Dir, "data"), func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				if info, e := e.Info(); e == nil && info.Size() > n {
					n = info.Size()
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const small = 100 << 10
	if n := fetched(); n >= small {
		t.Fatalf("a file of %d bytes is here already", n)
	}
	if _, _, _, err := other.solve(t, client.SolveOpt{}); err != nil {
		t.Fatal(err)
	}
	if n := fetched(); n >= small {
		t.Errorf("a file of %d bytes was fetched for a label", n)
	}
	if _, _, _, err := other.solve(t, client.SolveOpt{Exports: image("labelled")}); err != nil {
		t.Fatal(err)
	}
	if got := other.d.Tare(t, "run", "--rm", "labelled", "echo", "runs"); got != "runs" {
		t.Errorf("the image says %q", got)
	}
	if got := other.d.Tare(t, "image", "inspect", "--format", "{{.RepoTags}}", base); !strings.Contains(got, base) {
		t.Errorf("the base has the names %s", got)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("that has not come about")
		}
	}
}

// Two builds of the same step at the same time run it once, and one that is given
// up does not end it for the other.
func TestSharedStep(t *testing.T) {
	b := newCaching(t, map[string]string{"Dockerfile": "FROM busybox\n" +
		"RUN --mount=type=cache,id=shared,target=/c echo ran >> /c/count; head -c 8 /dev/urandom | md5sum > /id; until [ -e /c/go ]; do sleep 0.02; done\n"})
	type build struct {
		cancel context.CancelFunc
		begun  chan struct{}
		err    chan error
	}
	begin := func(name string) *build {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		x := &build{cancel, make(chan struct{}), make(chan error, 1)}
		ch := make(chan *client.SolveStatus)
		go func() {
			begun := false
			for s := range ch {
				for _, v := range s.Vertexes {
					if !begun && strings.Contains(v.Name, "RUN --mount") && v.Started != nil {
						begun = true
						close(x.begun)
					}
				}
			}
		}()
		go func() {
			_, err := b.c.Solve(ctx, nil, b.opt(client.SolveOpt{Exports: image(name)}), ch)
			x.err <- err
		}()
		return x
	}
	first := begin("first")
	second, third := begin("second"), begin("third")
	for _, x := range []*build{first, second, third} {
		select {
		case <-x.begun:
		case err := <-x.err:
			t.Fatal(err)
		}
	}
	first.cancel()
	if err := <-first.err; err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("what was given up ended by %v", err)
	}
	shell := func(line string) string {
		t.Helper()
		def, err := llb.Image("busybox").Run(llb.Args([]string{"sh", "-c", line}), llb.IgnoreCache,
			llb.AddMount("/c", llb.Scratch(), llb.AsPersistentCacheDir("/shared", llb.CacheMountShared))).Root().Marshal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if _, err := b.c.Solve(t.Context(), def, client.SolveOpt{Exports: []client.ExportEntry{{Type: "local", OutputDir: dir}}}, nil); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(dir + "/out")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	shell("touch /c/go /out")
	for _, x := range []*build{second, third} {
		if err := <-x.err; err != nil {
			t.Fatal(err)
		}
	}
	if got := shell("cat /c/count > /out"); got != "ran\n" {
		t.Errorf("the step was run: %q", got)
	}
	if one, two := layersOf(t, b.d, "second"), layersOf(t, b.d, "third"); one != two {
		t.Errorf("the builds came to %s and %s", one, two)
	}
}

// The cache is held under the ceilings of daemon.json, without being asked, and
// whatever is used last stays.
func TestCeilings(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	conf := `{"builder": {"gc": {"policy": [{"keepStorage": "1MB", "filter": ["type=source.git.checkout"]}, {"maxUsedSpace": "5MB"}]}}}`
	if err := os.WriteFile(filepath.Join(d.Dir, "daemon.json"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Up(t)
	d.ImportBusybox(t)
	c, err := client.New(t.Context(), d.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	workers, err := c.ListWorkers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := workers[0].GCPolicy; len(p) != 2 || p[0].ReservedSpace != 1<<20 || p[0].Filter[0] != "type=source.git.checkout" || p[1].MaxUsedSpace != 5<<20 {
		t.Fatalf("the policy is shown as %+v", p)
	}
	b := &caching{d, c, files(t, map[string]string{"Dockerfile": "FROM busybox\nRUN head -c 2000000 /dev/urandom > /a\n" +
		"RUN head -c 2000000 /dev/urandom > /b\nRUN head -c 2000000 /dev/urandom > /c\nRUN head -c 2000000 /dev/urandom > /d\n"})}
	if _, _, done, err := b.solve(t, client.SolveOpt{}); err != nil || len(done) != 4 {
		t.Fatal(done, err)
	}
	used := func() (n int64, names string) {
		list, err := c.DiskUsage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			n += u.Size
			names += u.Description + ";"
		}
		return n, names
	}
	eventually(t, func() bool { n, _ := used(); return n < 5<<20 })
	// What others stand on went last: the rest is of use.
	if _, names := used(); !strings.Contains(names, "> /a") || !strings.Contains(names, "> /b") {
		t.Errorf("left are %s", names)
	}
	if _, cached, done, err := b.solve(t, client.SolveOpt{}); err != nil || len(cached) != 2 || len(done) != 2 {
		t.Errorf("%v: cached are %q, done %q", err, cached, done)
	}
}
