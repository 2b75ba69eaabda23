package image

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/test/faulty"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// What was pulled from one registry and pushed to another has its digest there.
func TestPushRoundTrip(t *testing.T) {
	from, to := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{})
	img := published(t, from.Host, "a/b:1", images.Spec{Layers: 3, Files: 10, Size: 2048})
	f, tr := transfers(t, t.TempDir())
	ref := to.Host + "/c:2"
	if err := tr.Pull(t.Context(), from.Host+"/a/b:1", PullOptions{}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	if err := f.Tag(t.Context(), from.Host+"/a/b:1", ref); err != nil {
		t.Fatal(err)
	}
	var told steps
	if err := tr.Push(t.Context(), ref, PushOptions{}, told.add); err != nil {
		t.Fatal(err)
	}
	if data, err := to.Get("/v2/c/manifests/2", ocispec.MediaTypeImageManifest); err != nil || digest.FromBytes(data) != img.Manifest.Digest {
		t.Errorf("%s, %v", data, err)
	}
	if told.list[0].Status != "The push refers to repository ["+to.Host+"/c]" {
		t.Errorf("%+v", told.list)
	}
	for _, l := range img.Layers {
		if states := told.states(short(l.Digest.Encoded())); states[0] != "Preparing" || states[len(states)-1] != "Pushed" {
			t.Errorf("%v", states)
		}
	}
	for _, p := range told.list {
		if (p.Total > 0) != (p.Status == "Pushing") { // Docker's clients print steps without counts alone where no terminal is
			t.Errorf("%+v", p)
		}
	}
	if aux := told.list[len(told.list)-1].Aux; aux != (Pushed{Tag: "2", Digest: img.Manifest.Digest.String(), Size: img.Manifest.Size}) {
		t.Errorf("%+v", aux)
	}
	// Elsewhere in the same registry no byte of a layer is sent again, and into
	// the same repository none is looked at twice.
	p := faulty.Start(t, faulty.Options{Registry: to})
	for _, name := range []string{"/c:2", "/d/e:3"} {
		if err := f.Tag(t.Context(), ref, p.Host+name); err != nil {
			t.Fatal(err)
		}
	}
	var known, mounted steps
	if err := tr.Push(t.Context(), p.Host+"/c:2", PushOptions{}, known.add); err != nil {
		t.Fatal(err)
	}
	if err := tr.Push(t.Context(), p.Host+"/d/e:3", PushOptions{}, mounted.add); err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Layers {
		id := short(l.Digest.Encoded())
		if k, m := known.states(id), mounted.states(id); k[len(k)-1] != "Layer already exists" || m[len(m)-1] != "Mounted from c" {
			t.Errorf("%v, %v", k, m)
		}
	}
	if n := p.Count(func(r *faulty.Request) bool {
		return r.Method == "PATCH" || r.Method == "PUT" && strings.Contains(r.Path, "/uploads/")
	}); n != 0 {
		t.Errorf("%d pieces of blobs were sent", n)
	}
}

func TestPushErrors(t *testing.T) {
	f, tr := transfers(t, t.TempDir())
	f.imported(t, "a:1", file{"a", "b"})
	for ref, kind := range map[string]error{"b:1": fault.NotFound, "a": fault.NotFound, "a@sha256:" + strings.Repeat("a", 64): fault.Invalid} {
		if err := tr.Push(t.Context(), ref, PushOptions{}, func(Progress) {}); !errors.Is(err, kind) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestPushAllTags(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	f, tr := transfers(t, t.TempDir())
	for _, tag := range []string{"1", "2"} {
		f.imported(t, reg.Host+"/a:"+tag, file{"tag", tag})
	}
	if err := tr.Push(t.Context(), reg.Host+"/a", PushOptions{All: true}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	var list struct{ Tags []string }
	data, err := reg.Get("/v2/a/tags/list")
	err = errors.Join(err, json.Unmarshal(data, &list))
	if slices.Sort(list.Tags); err != nil || !slices.Equal(list.Tags, []string{"1", "2"}) {
		t.Error(list, err)
	}
}

// Of an index whose platforms are not all here the one that is here is pushed.
func TestPushPartOfIndex(t *testing.T) {
	from, to := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{})
	l := images.Layout(t.TempDir())
	var manifests []ocispec.Descriptor
	for i, arch := range []string{platform.Host().Architecture, "s390x"} {
		img, err := images.Write(string(l), images.Spec{Seed: uint64(i + 1), Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Tag: arch})
		if err != nil {
			t.Fatal(err)
		}
		img.Manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		manifests = append(manifests, img.Manifest)
	}
	index, err := l.Index("multi", manifests...)
	if err != nil {
		t.Fatal(err)
	}
	images.Copy(t, "oci:"+string(l)+":multi", "docker://"+from.Host+"/a:1", "--all", "--preserve-digests", "--dest-tls-verify=false")
	f, tr := transfers(t, t.TempDir())
	get := func(tag string) digest.Digest {
		data, err := to.Get("/v2/a/manifests/"+tag, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex)
		if err != nil {
			t.Fatal(err)
		}
		return digest.FromBytes(data)
	}
	push := func(tag string, o PushOptions) *steps {
		var told steps
		ref := to.Host + "/a:" + tag
		if err := f.Tag(t.Context(), from.Host+"/a:1", ref); err != nil {
			t.Fatal(err)
		}
		if err := tr.Push(t.Context(), ref, o, told.add); err != nil {
			t.Fatal(err)
		}
		return &told
	}
	pull := func(platform string) {
		if err := tr.Pull(t.Context(), from.Host+"/a:1", PullOptions{Platform: platform}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
	}
	pull("")
	told := push("part", PushOptions{})
	if got := get("part"); got != manifests[0].Digest {
		t.Errorf("%s was pushed", got)
	}
	if !slices.ContainsFunc(told.list, func(p Progress) bool {
		aux, ok := p.Aux.(pushedInstead)
		return ok && aux.OriginalIndex.Digest == index.Digest && aux.SelectedManifest.Digest == manifests[0].Digest
	}) {
		t.Errorf("nobody was told: %+v", told.list)
	}
	pull("linux/s390x")
	push("whole", PushOptions{})
	if got := get("whole"); got != index.Digest {
		t.Errorf("%s was pushed", got)
	}
	push("one", PushOptions{Platform: "linux/s390x"})
	if got := get("one"); got != manifests[1].Digest {
		t.Errorf("%s was pushed", got)
	}
}

// artifact makes an artifact of no known type that is about the image.
func artifact(t *testing.T, l images.Layout, about ocispec.Descriptor) (manifest ocispec.Descriptor, blobs []ocispec.Descriptor) {
	t.Helper()
	layer, err := l.Bytes("application/x-notes", []byte("some notes"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := l.Bytes(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err = l.JSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/x-thing", Config: config, Layers: []ocispec.Descriptor{layer}, Subject: &about, Annotations: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	return manifest, []ocispec.Descriptor{config, layer, manifest}
}

// An artifact goes in and out as it is, called by its name or fetched with the
// image that it is about.
func TestArtifactRoundTrip(t *testing.T) {
	from, to := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{})
	l := images.Layout(t.TempDir())
	img, err := images.Write(string(l), images.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	images.Copy(t, img.Ref(), "docker://"+from.Host+"/a:image", "--dest-tls-verify=false")
	about, blobs := artifact(t, l, img.Manifest)
	f, tr := transfers(t, t.TempDir())
	for _, b := range blobs { // Debian's skopeo cannot copy an artifact
		if _, err := f.content.Put(read(t, l.Path(b.Digest))); err != nil {
			t.Fatal(err)
		}
	}
	name := from.Host + "/a:note"
	if err := f.content.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.With(content.Entry{Name: name, Target: about}), nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := tr.Push(t.Context(), name, PushOptions{}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	for tag, repository := range map[string]string{"note": "by-name", "image": "with-image"} {
		g, tr := transfers(t, t.TempDir())
		target := to.Host + "/" + repository + ":2"
		if err := tr.Pull(t.Context(), from.Host+"/a:"+tag, PullOptions{}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		if err := g.Tag(t.Context(), from.Host+"/a:"+tag, target); err != nil {
			t.Fatal(err)
		}
		if err := tr.Push(t.Context(), target, PushOptions{}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		// This registry has no list of referrers: a tag stands for it.
		data, err := to.Get("/v2/"+repository+"/manifests/"+strings.Replace(img.Manifest.Digest.String(), ":", "-", 1), ocispec.MediaTypeImageIndex)
		if err != nil || !strings.Contains(string(data), about.Digest.String()) {
			t.Errorf("%s: %s, %v", repository, data, err)
		}
		data, err = to.Get("/v2/"+repository+"/manifests/"+about.Digest.String(), ocispec.MediaTypeImageManifest)
		if err != nil || digest.FromBytes(data) != about.Digest {
			t.Errorf("%s: %s, %v", repository, data, err)
		}
		if list, err := g.Inventory.List(t.Context(), inventory.ListOptions{}); err != nil || len(list) != 2 { // hello is the other one
			t.Errorf("%d images, %v", len(list), err)
		}
		if _, err := g.Remove(t.Context(), from.Host+"/a:"+tag, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Remove(t.Context(), target, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, here := g.content.Size(about.Digest); here {
			t.Error("the artifact outlives its image")
		}
	}
}

// What is about an image goes when its registry has it no more, and stays when
// that is not to be known.
func TestReferrersFollow(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	l := images.Layout(t.TempDir())
	img, err := images.Write(string(l), images.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	images.Copy(t, img.Ref(), "docker://"+reg.Host+"/a:image", "--dest-tls-verify=false")
	about, blobs := artifact(t, l, img.Manifest)
	f, tr := transfers(t, t.TempDir())
	for _, b := range blobs {
		if _, err := f.content.Put(read(t, l.Path(b.Digest))); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.content.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.With(content.Entry{Name: reg.Host + "/a:note", Target: about}), nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := tr.Push(t.Context(), reg.Host+"/a:note", PushOptions{}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	listed, known := []ocispec.Descriptor{about}, true
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: reg.Host})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.Contains(r.URL.Path, "/referrers/"):
			behind.ServeHTTP(w, r)
		case !known:
			w.WriteHeader(http.StatusForbidden)
		case !strings.HasSuffix(r.URL.Path, img.Manifest.Digest.String()):
			io.WriteString(w, "{}")
		default:
			json.NewEncoder(w).Encode(ocispec.Index{Manifests: listed})
		}
	}))
	defer proxy.Close()
	g, tr := transfers(t, t.TempDir())
	pull := func(want int, status string) {
		t.Helper()
		var told steps
		if err := tr.Pull(t.Context(), strings.TrimPrefix(proxy.URL, "http://")+"/a:image", PullOptions{}, told.add); err != nil {
			t.Fatal(err)
		}
		_, here := g.content.Size(about.Digest)
		if got := g.content.Index().Attached(img.Manifest.Digest); len(got) != want || here != (want > 0) {
			t.Errorf("%d are attached, the artifact is here: %v", len(got), here)
		}
		if last := told.list[len(told.list)-1].Status; !strings.Contains(last, status) {
			t.Error(last)
		}
	}
	pull(1, "Downloaded newer image")
	known = false
	pull(1, "up to date")
	known, listed = true, nil
	pull(0, "up to date")
	listed = []ocispec.Descriptor{about}
	pull(1, "")
}

// Layers are compressed for a push when that is wanted, and never twice for the
// same registry.
func TestPushRecompressed(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	f, tr := transfers(t, t.TempDir())
	ref := reg.Host + "/a:1"
	id := f.imported(t, ref, file{"zeros", strings.Repeat("zero", 1<<18)})
	pushed := func() (d digest.Digest, told *steps) {
		told = &steps{}
		if err := tr.Push(t.Context(), ref, PushOptions{Recompress: &Recompressing{Compression: compression.Gzip}}, told.add); err != nil {
			t.Fatal(err)
		}
		data, err := reg.Get("/v2/a/manifests/1", ocispec.MediaTypeImageManifest)
		if err != nil {
			t.Fatal(err)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(data, &m); err != nil || m.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip || m.Layers[0].Size > 1<<16 {
			t.Errorf("%s, %v", data, err)
		}
		if _, here := f.content.Size(m.Layers[0].Digest); here {
			t.Error("what was made for the push is kept")
		}
		return digest.FromBytes(data), told
	}
	before := f.shape(t)
	first, _ := pushed()
	again, told := pushed()
	if first != again || first.String() == id {
		t.Errorf("%s, then %s, of %s", first, again, id)
	}
	if !slices.ContainsFunc(told.list, func(p Progress) bool { return p.Status == "Layer already exists" }) {
		t.Errorf("compressed again: %+v", told.list)
	}
	if after := f.shape(t); !slices.Equal(before, after) {
		t.Errorf("%v is left", after)
	}
	g, tr := transfers(t, t.TempDir())
	if err := tr.Pull(t.Context(), ref, PullOptions{}, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	got, err := g.Catalog.Resolve(t.Context(), ref)
	old, err2 := f.Catalog.Resolve(t.Context(), ref)
	if err := errors.Join(err, err2); err != nil || !slices.Equal(got.DiffIDs, old.DiffIDs) {
		t.Error(got, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
