package compat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/tarehq/tare/test/daemon"
)

// caching is BuildKit's own client building one Dockerfile at a daemon.
type caching struct {
	d    *daemon.Daemon
	c    *client.Client
	tree fsutil.FS
}

func newCaching(t *testing.T, list map[string]string) *caching {
	d, c := builder(t)
	return &caching{d, c, files(t, list)}
}

// opt completes what a build is asked for.
func (b *caching) opt(o client.SolveOpt) client.SolveOpt {
	o.Frontend = "dockerfile.v0"
	if o.FrontendAttrs == nil {
		o.FrontendAttrs = map[string]string{}
	}
	o.LocalMounts = map[string]fsutil.FS{"context": b.tree, "dockerfile": b.tree}
	return o
}

// solve builds, and tells which steps the caches had and which were done.
func (b *caching) solve(t *testing.T, o client.SolveOpt) (resp *client.SolveResponse, cached, done []string, err error) {
	t.Helper()
	o = b.opt(o)
	ch, over := make(chan *client.SolveStatus), make(chan struct{})
	last := map[string]*client.Vertex{}
	go func() {
		defer close(over)
		for s := range ch {
			for _, v := range s.Vertexes {
				last[v.Digest.String()] = v
			}
		}
	}()
	resp, err = b.c.Solve(t.Context(), nil, o, ch)
	<-over
	for _, v := range last {
		_, step, found := strings.Cut(v.Name, "] ")
		switch {
		case !found || strings.HasPrefix(v.Name, "[internal]") || strings.HasPrefix(step, "FROM"):
		case v.Cached:
			cached = append(cached, step)
		default:
			done = append(done, step)
		}
	}
	slices.Sort(cached)
	slices.Sort(done)
	return resp, cached, done, err
}

func image(name string) []client.ExportEntry {
	return []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": name}}}
}

func layersOf(t *testing.T, d *daemon.Daemon, name string) string {
	t.Helper()
	return d.Tare(t, "image", "inspect", "--format", "{{json .RootFS.Layers}}", name)
}

const cachedDockerfile = `FROM busybox AS made
RUN head -c 64 /dev/urandom > /random && echo stable > /stable
FROM busybox
COPY --from=made /stable /stable
RUN head -c 64 /dev/urandom > /unique
COPY file /file
`

// A cache is written by one daemon and used by another that has nothing: all that
// was random is the same there. mode=min and inline have only the layers of the
// image, and what leads to them is known all the same.
func TestCacheElsewhere(t *testing.T) {
	list := map[string]string{"Dockerfile": cachedDockerfile, "file": "1"}
	from := newCaching(t, list)
	reg := strings.TrimPrefix(serve(t, "[storage]\nroot = \""+t.TempDir()+"\"\n"), "http://")
	dir := t.TempDir()
	to := func(kind string, attrs ...string) client.CacheOptionsEntry {
		e := client.CacheOptionsEntry{Type: kind, Attrs: map[string]string{}}
		for i := 0; i < len(attrs); i += 2 {
			e.Attrs[attrs[i]] = attrs[i+1]
		}
		return e
	}
	pushed := []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": reg + "/app:1", "push": "true"}}}
	_, _, done, err := from.solve(t, client.SolveOpt{Exports: pushed, CacheExports: []client.CacheOptionsEntry{
		to("inline"), to("local", "dest", dir+"/max", "mode", "max", "compression", "zstd", "force-compression", "true"),
		to("registry", "ref", reg+"/cache:min"), to("registry", "ref", reg+"/cache:list", "image-manifest", "false", "mode", "max"),
		to("registry", "ref", reg+"/cache:docker", "oci-mediatypes", "false", "compression", "uncompressed"),
	}})
	if err != nil || len(done) != 4 {
		t.Fatalf("%v: done %q", err, done)
	}
	want := layersOf(t, from.d, reg+"/app:1")
	checkCacheForm(t, dir+"/max")

	for name, entry := range map[string]client.CacheOptionsEntry{
		"local": to("local", "src", dir+"/max"), "min": to("registry", "ref", reg+"/cache:min"), "list": to("registry", "ref", reg+"/cache:list"),
		"docker": to("registry", "ref", reg+"/cache:docker"), "inline": to("registry", "ref", reg+"/app:1"),
	} {
		t.Run(name, func(t *testing.T) {
			other := newCaching(t, list)
			_, cached, done, err := other.solve(t, client.SolveOpt{Exports: image("got"), CacheImports: []client.CacheOptionsEntry{entry}})
			if err != nil || len(done) != 0 || len(cached) != 4 {
				t.Fatalf("%v: cached are %q, done %q", err, cached, done)
			}
			if got := layersOf(t, other.d, "got"); got != want {
				t.Errorf("the layers are %s, want %s", got, want)
			}
			// What came from elsewhere answers what it was asked for: the random step is not
			// here, and without the cache nobody believes what its copy would have come to.
			if _, _, done, err := other.solve(t, client.SolveOpt{Exports: image("again"), CacheImports: []client.CacheOptionsEntry{entry}}); err != nil || len(done) != 0 {
				t.Errorf("%v: done again were %q", err, done)
			}
			if got := layersOf(t, other.d, "again"); got != want {
				t.Errorf("the layers are %s then, want %s", got, want)
			}
			// A change of what only another stage shows: the layer that is known by its
			// name alone must be made after all, and fits.
			changed := strings.ReplaceAll(cachedDockerfile, "/stable /stable", "/random /other")
			other.tree = files(t, map[string]string{"Dockerfile": changed, "file": "1"})
			if _, _, _, err := other.solve(t, client.SolveOpt{Exports: image("changed"), CacheImports: []client.CacheOptionsEntry{entry}}); err != nil {
				t.Fatal(err)
			}
			if got := other.d.Tare(t, "run", "--rm", "changed", "sh", "-c", "wc -c < /other; cat /file"); got != "64\n1" {
				t.Errorf("the changed image has %q", got)
			}
		})
	}
}

// checkCacheForm holds a directory to what BuildKit says a cache is.
func checkCacheForm(t *testing.T, dir string) {
	t.Helper()
	read := func(name string, to any) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, to); err != nil {
			t.Fatal(err)
		}
	}
	type blob struct {
		MediaType, Digest string
		Annotations       map[string]string
	}
	var index struct{ Manifests []blob }
	read("index.json", &index)
	var m struct {
		Config blob
		Layers []blob
	}
	path := func(d string) string { return "blobs/" + strings.Replace(d, ":", "/", 1) }
	read(path(index.Manifests[0].Digest), &m)
	var config struct {
		Layers []struct {
			Blob   string
			Parent int
		}
		Records []struct {
			Digest string
			Layers []struct{ Layer int }
		}
	}
	read(path(m.Config.Digest), &config)
	if m.Config.MediaType != "application/vnd.buildkit.cacheconfig.v0" || len(m.Layers) != 5 || len(config.Layers) != 5 || len(config.Records) < 4 {
		t.Fatalf("the cache is %+v, %+v", m, config)
	}
	for i, l := range m.Layers {
		if !strings.HasSuffix(l.MediaType, "+zstd") || l.Annotations["containerd.io/uncompressed"] == "" || config.Layers[i].Blob != l.Digest {
			t.Errorf("layer %d is %+v", i, l)
		}
	}
}

// What somebody wrote is refused or passed over, and the build is made.
func TestHostileCache(t *testing.T) {
	b := newCaching(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo made > /made\n"})
	dir := t.TempDir()
	forget := func() {
		t.Helper()
		if err := b.c.Prune(t.Context(), nil, client.PruneAll); err != nil {
			t.Fatal(err)
		}
	}
	solve := func(name string) (done []string) {
		t.Helper()
		_, _, done, err := b.solve(t, client.SolveOpt{Exports: image(name), CacheImports: []client.CacheOptionsEntry{{Type: "local", Attrs: map[string]string{"src": dir}}}})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if _, _, _, err := b.solve(t, client.SolveOpt{CacheExports: []client.CacheOptionsEntry{{Type: "local", Attrs: map[string]string{"dest": dir}}}}); err != nil {
		t.Fatal(err)
	}
	var index struct{ Manifests []struct{ Digest string } }
	text, err := os.ReadFile(dir + "/index.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &index); err != nil {
		t.Fatal(err)
	}
	// All layers hold something else than they say.
	blobs, err := filepath.Glob(dir + "/blobs/sha256/*")
	if err != nil || len(blobs) < 4 {
		t.Fatal(blobs, err)
	}
	for _, name := range blobs {
		if data, err := os.ReadFile(name); err != nil || data[0] == '{' {
			continue
		}
		if err := os.WriteFile(name, []byte("not a layer"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	solve("one")
	if got := b.d.Tare(t, "run", "--rm", "one", "cat", "/made"); got != "made" {
		t.Errorf("with rotten layers the image has %q", got)
	}
	// The manifest itself is no such thing.
	forget()
	name := filepath.Join(dir, "blobs", strings.Replace(index.Manifests[0].Digest, ":", "/", 1))
	if err := os.WriteFile(name, []byte(`{"config":{"mediaType":"application/vnd.buildkit.cacheconfig.v0"}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if done := solve("two"); len(done) != 1 {
		t.Errorf("with a false manifest were done %q", done)
	}
}
