package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/config"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/remote"
	"golang.org/x/sys/unix"
)

func (f fixture) saved(t testing.TB, refs ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := f.Save(context.Background(), &buf, refs, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (f fixture) loaded(t testing.TB, archive []byte) []string {
	t.Helper()
	var lines []string
	if err := f.Load(context.Background(), bytes.NewReader(archive), LoadOptions{}, func(l string) { lines = append(lines, l) }); err != nil {
		t.Fatal(err)
	}
	return lines
}

// unpacked gives a tar's files by name, and repacked makes a tar of them.
func unpacked(t testing.TB, archive []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	for tr := tar.NewReader(bytes.NewReader(archive)); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Typeflag == tar.TypeReg {
			files[hdr.Name] = string(data)
		}
	}
}

func repacked(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var list []file
	for name, data := range files {
		list = append(list, file{name, data})
	}
	return rootfs(t, list...)
}

func TestSaveRemoveLoad(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	a := f.imported(t, "a:1", file{"a", "1"})
	b := f.imported(t, "b", file{"b", "1"})
	if err := f.Tag(ctx, "a:1", "me/other"); err != nil {
		t.Fatal(err)
	}
	hello, _ := f.Catalog.Resolve(ctx, "hello")
	archive := f.saved(t, "a:1", "me/other", "b", "hello")
	if again := f.saved(t, "a:1", "me/other", "b", "hello"); !bytes.Equal(archive, again) {
		t.Error("saving twice gives different bytes")
	}
	before := ids(t, f, nil)
	for _, ref := range []string{a, b, "hello"} {
		if _, err := f.Remove(ctx, ref, RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(archive)
	z.Close()
	got := f.loaded(t, zipped.Bytes())
	want := []string{"Loaded image: a:1", "Loaded image: me/other:latest", "Loaded image: b:latest", "Loaded image: hello:latest"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, ids(t, f, nil)); diff != "" {
		t.Error(diff)
	}
	for ref, id := range map[string]string{"a:1": a, "me/other": a, "b": b, "hello": hello.ID.String()} {
		img, err := f.Catalog.Resolve(ctx, ref)
		if err != nil || img.ID.String() != id || !f.layers.Has(img.ChainID) {
			t.Errorf("%s is %s instead of %s: %v", ref, img.ID, id, err)
		}
	}
	if err := f.Save(ctx, io.Discard, []string{"a:1", "nosuch"}, SaveOptions{}); err == nil || err.Error() != "No such image: nosuch:latest" {
		t.Error(err)
	}
}

func TestSaveByIDHasNoName(t *testing.T) {
	f := open(t, t.TempDir())
	id := f.imported(t, "a", file{"a", "1"})
	archive := f.saved(t, id)
	g := open(t, t.TempDir())
	if got := g.loaded(t, archive); !slices.Equal(got, []string{"Loaded image ID: " + id}) {
		t.Error(got)
	}
	if got := ids(t, g, nil); !slices.Equal(got, []string{"", "hello:latest"}) {
		t.Error(got)
	}
}

// An index of which no platform is here, and what is no image at all, can be
// looked at, saved and removed.
func TestIndexWithoutImage(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	files := map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}
	add := func(mediaType string, v any) ocispec.Descriptor {
		data, _ := json.Marshal(v)
		d := digest.FromBytes(data)
		files[blobFile(d)] = string(data)
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	artifact := add(ocispec.MediaTypeImageManifest, ocispec.Manifest{ArtifactType: "application/x-thing",
		Config: add("application/vnd.oci.empty.v1+json", struct{}{}), Layers: []ocispec.Descriptor{add("application/x-thing", "thing")}})
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("not here"), Size: 8,
		Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}
	index := add(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: []ocispec.Descriptor{absent, artifact}})
	index.Annotations = map[string]string{content.AnnotationName: "docker.io/library/absent:1"}
	artifact.Annotations = map[string]string{content.AnnotationName: "docker.io/library/artifact:1"}
	signature := add(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: add(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: platform.Host()}),
		Layers: []ocispec.Descriptor{add("application/x-signature", "signed")}})
	signature.Annotations = map[string]string{content.AnnotationName: "docker.io/library/signature:1"}
	top, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{index, artifact, signature}})
	files["index.json"] = string(top)
	f.loaded(t, repacked(t, files))
	for name, d := range map[string]ocispec.Descriptor{"absent:1": index, "artifact:1": artifact, "signature:1": signature} {
		r, err := f.Inventory.Inspect(ctx, name, inventory.InspectOptions{Manifests: true})
		if err != nil || r.ID != d.Digest.String() || r.Config != nil || r.Size == 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		g := open(t, t.TempDir())
		if got := g.loaded(t, f.saved(t, name)); !slices.Equal(got, []string{"Loaded image: " + name}) {
			t.Error(got)
		}
		if _, err := f.Remove(ctx, name, RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func TestInspectPlatform(t *testing.T) {
	f := open(t, t.TempDir())
	img, err := f.Catalog.ResolvePlatform(context.Background(), "hello", "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Inventory.Inspect(context.Background(), "hello", inventory.InspectOptions{Platform: "linux/arm64"})
	if err != nil || r.ID != img.Manifest.Digest.String() || r.Descriptor.Digest.String() != r.ID || r.Architecture != "arm64" {
		t.Errorf("%+v, %v", r, err)
	}
}

// An archive cannot give a name with a digest to what has another one.
func TestLoadNameWithDigest(t *testing.T) {
	f := open(t, t.TempDir())
	id := f.imported(t, "a", file{"a", "1"})
	files := unpacked(t, f.saved(t, "a"))
	plain := files["index.json"]
	for digest, want := range map[string]string{id: "Loaded image: b@" + id, digest.FromString("").String(): "Loaded image ID: " + id} {
		files["index.json"] = strings.Replace(plain, "docker.io/library/a:latest", "docker.io/library/b@"+digest, 1)
		if got := open(t, t.TempDir()).loaded(t, repacked(t, files)); !slices.Equal(got, []string{want}) {
			t.Error(got)
		}
	}
	delete(files, "index.json")
	files["manifest.json"] = strings.Replace(files["manifest.json"], "a:latest", "a@"+id, 1)
	if err := f.Load(context.Background(), bytes.NewReader(repacked(t, files)), LoadOptions{}, nil); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// A repository stands for its tags, and a digest for no name.
func TestSaveRepository(t *testing.T) {
	f := open(t, t.TempDir())
	id := f.imported(t, "a:1", file{"a", "1"})
	f.imported(t, "a:2", file{"a", "2"})
	f.imported(t, "ab:1", file{"a", "3"})
	g := open(t, t.TempDir())
	if got := g.loaded(t, f.saved(t, "a")); !slices.Equal(got, []string{"Loaded image: a:1", "Loaded image: a:2"}) {
		t.Error(got)
	}
	if got := g.loaded(t, f.saved(t, "a@"+id)); !slices.Equal(got, []string{"Loaded image ID: " + id}) {
		t.Error(got)
	}
}

// An index is kept whole: platforms that cannot run here, attestations,
// annotations, and manifests of which nobody knows what they are.
func TestLoadKeepsAnIndexWhole(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	hello, _ := f.Catalog.Resolve(ctx, "hello")
	files := unpacked(t, f.saved(t, "hello"))
	add := func(mediaType string, v any) ocispec.Descriptor {
		data, _ := json.Marshal(v)
		d := digest.FromBytes(data)
		files[blobFile(d)] = string(data)
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	var index ocispec.Index
	json.Unmarshal([]byte(files[blobFile(hello.ID)]), &index)
	statement := add("application/vnd.in-toto+json", map[string]string{"what": "provenance"})
	attestation := add(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: add(ocispec.MediaTypeImageConfig, struct{}{}), Layers: []ocispec.Descriptor{statement}})
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{catalog.AnnotationRefType: "attestation-manifest", catalog.AnnotationRefDigest: hello.Manifest.Digest.String()}
	artifact := add(ocispec.MediaTypeImageManifest, ocispec.Manifest{ArtifactType: "application/x-thing", Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{add("application/x-thing", "thing")}})
	files[blobFile(ocispec.DescriptorEmptyJSON.Digest)] = "{}"
	index.Manifests = append(index.Manifests, attestation, artifact, add("application/x-other", "no manifest"))
	index.Annotations = map[string]string{"org.example": "index"}
	target := add(ocispec.MediaTypeImageIndex, index)
	target.Annotations = map[string]string{content.AnnotationName: "docker.io/library/multi:1", "org.example": "descriptor"}
	top, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{target}})
	files["index.json"] = string(top)

	g := open(t, t.TempDir())
	g.loaded(t, repacked(t, files))
	img, err := g.Catalog.Resolve(ctx, "multi:1")
	if err != nil || img.ID != target.Digest || img.Manifest.Digest != hello.Manifest.Digest {
		t.Fatalf("%+v, %v", img, err)
	}
	r, err := g.Inventory.Inspect(ctx, "multi:1", inventory.InspectOptions{Manifests: true})
	if err != nil || len(r.Manifests) != 4 || r.Descriptor.Annotations["org.example"] != "descriptor" {
		t.Fatalf("%+v, %v", r, err)
	}
	if m := r.Manifests[2]; m.Kind != "attestation" || m.AttestationData.For != hello.Manifest.Digest || !m.Available {
		t.Errorf("%+v", m)
	}
	if m := r.Manifests[3]; m.Kind != "unknown" || !m.Available {
		t.Errorf("%+v", m)
	}
	again := unpacked(t, g.saved(t, "multi:1"))
	for name, data := range files {
		if strings.HasPrefix(name, "blobs/") && name != blobFile(hello.ID) && again[name] != data {
			t.Errorf("%s was lost", name)
		}
	}
	var one bytes.Buffer
	if err := g.Save(ctx, &one, []string{"multi:1"}, SaveOptions{Platforms: []string{"linux/arm64"}}); err != nil {
		t.Fatal(err)
	}
	if n := len(unpacked(t, one.Bytes())); n != 6 {
		t.Errorf("one platform has %d files", n)
	}
}

// legacy makes a docker-archive as older programs write it: no layout, layers
// in directories, equal ones linked.
func legacy(t testing.TB, change func(config *dockerspec.DockerOCIImage)) []byte {
	t.Helper()
	layer := string(rootfs(t, file{"a", "legacy"}))
	diff := digest.FromString(layer)
	config := dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff, diff}}}}
	if change != nil {
		change(&config)
	}
	data, _ := json.Marshal(config)
	list, _ := json.Marshal([]archived{{Config: "c.json", RepoTags: []string{"old:1", "old:2"}, Layers: []string{"1/layer.tar", "2/layer.tar"}}})
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range []file{{"1/layer.tar", layer}, {"c.json", string(data)}, {"manifest.json", string(list)}, {"repositories", "{}"}} {
		w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.data))})
		w.Write([]byte(f.data))
	}
	w.WriteHeader(&tar.Header{Name: "2/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../1/layer.tar"})
	w.Close()
	return buf.Bytes()
}

func TestLoadDockerArchive(t *testing.T) {
	f := open(t, t.TempDir())
	ctx := context.Background()
	archive := legacy(t, nil)
	if got := f.loaded(t, archive); !slices.Equal(got, []string{"Loaded image: old:1", "Loaded image: old:2"}) {
		t.Error(got)
	}
	first, err := f.Catalog.Resolve(ctx, "old:1")
	if err != nil || first.Manifest.MediaType != content.DockerManifest || len(first.DiffIDs) != 2 {
		t.Fatalf("%+v, %v", first, err)
	}
	shape := f.shape(t)
	f.loaded(t, archive)
	if second, _ := f.Catalog.Resolve(ctx, "old:2"); second.ID != first.ID {
		t.Error("the same archive has become another image")
	}
	if diff := cmp.Diff(shape, f.shape(t)); diff != "" {
		t.Error(diff)
	}
	if _, err := f.layers.Prepare("c", first.ChainID); err != nil {
		t.Error(err)
	}
}

func TestLoadRefusesAndLeavesNothing(t *testing.T) {
	f := open(t, t.TempDir())
	f.imported(t, "a", file{"a", strings.Repeat("data", 1000)})
	whole := f.saved(t, "a")
	img, _ := f.Catalog.Resolve(context.Background(), "a")
	edit := func(change func(files map[string]string)) []byte {
		files := unpacked(t, whole)
		change(files)
		return repacked(t, files)
	}
	layer := blobFile(img.Layers[0].Digest)
	g := open(t, t.TempDir())
	before := g.shape(t)
	cases := map[string]struct {
		data []byte
		want string
	}{
		"damaged":        {edit(func(f map[string]string) { f[layer] = strings.Replace(f[layer], "data", "evil", 1) }), "has the digest"},
		"layer missing":  {edit(func(f map[string]string) { delete(f, layer) }), "a layer of image"},
		"target missing": {edit(func(f map[string]string) { delete(f, blobFile(img.ID)) }), "is not in it"},
		"another list":   {edit(func(f map[string]string) { f["manifest.json"] = `{"schemaVersion":2}`; delete(f, "index.json") }), "manifest.json is not a list of images"},
		"no index":       {edit(func(f map[string]string) { delete(f, "index.json"); delete(f, "manifest.json") }), "unrecognized image format"},
		"bad json":       {edit(func(f map[string]string) { f["index.json"] = "{" }), "index.json"},
		"bad digest":     {edit(func(f map[string]string) { f["index.json"] = `{"manifests":[{"digest":"../../x"}]}` }), "not a digest"},
		"no images":      {edit(func(f map[string]string) { f["index.json"] = `{}` }), "holds no image"},
		"truncated":      {whole[:len(whole)/2], "truncated"},
		"empty":          {nil, "empty"},
		"rootfs":         {rootfs(t, file{"etc/passwd", ""}), "unrecognized image format"},
		"diff ids": {legacy(t, func(c *dockerspec.DockerOCIImage) {
			c.RootFS.DiffIDs = []digest.Digest{digest.FromString("x"), digest.FromString("y")}
		}), "does not have the digest"},
		"wrong size": {edit(func(f map[string]string) {
			f["index.json"] = strings.Replace(f["index.json"], `"size":`, `"size":1`, 1)
		}), "and is said to have"},
		"many layers": {edit(func(f map[string]string) {
			delete(f, "index.json")
			f["manifest.json"] = `[{"Config":"` + blobFile(img.ID) + `","Layers":["` + layer + strings.Repeat(`","`+layer, 100_000) + `"]}]`
		}), "layers, more than"},
		"many names": {edit(func(f map[string]string) {
			delete(f, "index.json")
			f["manifest.json"] = `[{"Config":"` + blobFile(img.ID) + `","RepoTags":["a` + strings.Repeat(`","a`, 200_000) + `"]}]`
		}), "it has more than 100000 images"},
		"long name": {edit(func(f map[string]string) { f[strings.Repeat("x/", 5000)+"x"] = "" }), "is too long"},
		"layers":    {legacy(t, func(c *dockerspec.DockerOCIImage) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[:1] }), "2 layers and 1 layer digests"},
	}
	for name, c := range cases {
		err := g.Load(context.Background(), bytes.NewReader(c.data), LoadOptions{}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, g.shape(t)); diff != "" {
		t.Error("the store has changed:\n", diff)
	}
	if len(g.events.events) != 0 {
		t.Error(g.events.events)
	}
}

// A file of holes takes no room in an archive, and would fill the disk as a blob.
func TestLoadRefusesSparseFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"layer.tar", blobFile(digest.FromString("x"))} {
		path := dir + "/" + name
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<42)); err != nil {
			t.Fatal(err)
		}
		for _, version := range []string{"0.0", "0.1", "1.0"} {
			data, err := exec.Command("tar", "-C", dir, "--format=pax", "--sparse", "--sparse-version="+version, "-c", name).Output()
			if err != nil {
				t.Fatal(err)
			}
			g := open(t, t.TempDir())
			err = g.Load(t.Context(), bytes.NewReader(data), LoadOptions{}, nil)
			if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "sparse file") {
				t.Errorf("%s, version %s: %v", name, version, err)
			}
		}
	}
}

func TestSaveNoticesDamage(t *testing.T) {
	f := open(t, t.TempDir())
	f.imported(t, "a", file{"a", "1"})
	img, _ := f.Catalog.Resolve(context.Background(), "a")
	path := f.root + "/content/" + blobFile(img.Layers[0].Digest)
	data, _ := os.ReadFile(path)
	os.Remove(path)
	data[len(data)-1] ^= 1
	os.WriteFile(path, data, 0o444)
	if err := f.Save(context.Background(), io.Discard, []string{"a"}, SaveOptions{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}

// A full disk gives one error and leaves what was there. The small file system
// is mounted in a mount namespace of a process of its own.
func TestFullDisk(t *testing.T) {
	testutil.RequireRoot(t)
	if root := os.Getenv("TARE_TEST_FULL_DISK"); root != "" {
		fillDisk(t, root)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount -t tmpfs -o size=3m tmpfs "$1" && exec "$2" -test.run '^TestFullDisk$' -test.v`, "sh", dir, os.Args[0])
	cmd.Env = append(os.Environ(), "TARE_TEST_FULL_DISK="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("the mount was seen outside: %v", left)
	}
}

func fillDisk(t *testing.T, root string) {
	ctx := context.Background()
	f := open(t, root)
	f.imported(t, "small", file{"a", "1"})
	small := f.saved(t, "small")
	before := f.shape(t)
	big := rootfs(t, file{"big", strings.Repeat("x", 4<<20)})
	for range 3 {
		_, err := f.Import(ctx, bytes.NewReader(big), ImportOptions{Reference: "big"})
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		t.Log(err)
	}
	if diff := cmp.Diff(before, f.shape(t)); diff != "" {
		t.Error(diff)
	}
	l := newLiar(t)
	l.image("big", l.blob(ocispec.MediaTypeImageLayer, rootfs(t, file{"b", strings.Repeat("y", 200_000)})), l.blob(ocispec.MediaTypeImageLayer, big))
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	tr := NewTransfers(f.Service, client, Limits{Downloads: 2})
	if err := tr.Pull(ctx, l.host+"/a:big", PullOptions{}, func(Progress) {}); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	if err := tr.Close(ctx); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, f.shape(t)); diff != "" {
		t.Error(diff)
	}
	f.loaded(t, small)
	if _, err := f.Catalog.Resolve(ctx, "small"); err != nil {
		t.Error(err)
	}
}

func TestCrashBetweenBlobsAndName(t *testing.T) {
	f := open(t, t.TempDir())
	before := f.shape(t)
	// All of an import but the name, without the holding that a living
	// process does.
	layer, err := f.importLayer(context.Background(), bytes.NewReader(rootfs(t, file{"a", "1"})))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Put(f.content, dockerspec.DockerOCIImage{Image: ocispec.Image{RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{layer.Digest}}}}, []ocispec.Descriptor{layer}); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(f.root+"/content/ingest/blob123", []byte("half"), 0o600)
	os.MkdirAll(f.root+"/snapshot/new/layer.1/fs/etc", 0o755)
	if len(f.shape(t)) <= len(before) {
		t.Fatal("nothing was written")
	}
	g := open(t, f.root)
	if diff := cmp.Diff(before, g.shape(t)); diff != "" {
		t.Error(diff)
	}
}

func TestSkopeoReadsWhatIsSaved(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	f := open(t, t.TempDir())
	ctx := context.Background()
	id := f.imported(t, "a:1", file{"a", "1"})
	dir := t.TempDir()
	path := dir + "/saved.tar"
	if err := os.WriteFile(path, f.saved(t, "a:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	img, _ := f.Catalog.Resolve(ctx, "a:1")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("skopeo", args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if out := run("inspect", "oci-archive:"+path+":1"); !strings.Contains(out, id) {
		t.Errorf("the layout has not %s:\n%s", id, out)
	}
	if out := run("inspect", "docker-archive:"+path+":a:1"); !strings.Contains(out, img.DiffIDs[0].String()) {
		t.Errorf("the docker-archive has not layer %s:\n%s", img.DiffIDs[0], out)
	}
	// What skopeo writes is loaded: compressed layers, both formats.
	run("copy", "docker-archive:"+path+":a:1", "oci-archive:"+dir+"/oci.tar:fromoci:2")
	run("copy", "docker-archive:"+path+":a:1", "docker-archive:"+dir+"/docker.tar:fromdocker:2")
	g := open(t, t.TempDir())
	for name, ref := range map[string]string{"oci.tar": "fromoci:2", "docker.tar": "fromdocker:2"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		g.loaded(t, data)
		got, err := g.Catalog.Resolve(ctx, ref)
		if err != nil || got.ChainID != img.ChainID || !g.layers.Has(got.ChainID) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	f := open(b, b.TempDir())
	for b.Loop() {
		if _, err := f.Catalog.Resolve(context.Background(), "hello"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkImport(b *testing.B) {
	f := open(b, b.TempDir())
	var files []file
	for i := range 1000 {
		files = append(files, file{fmt.Sprintf("usr/d%d/f%d", i/50, i), strings.Repeat("x", 20000)})
	}
	data := rootfs(b, files...)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := f.Import(context.Background(), bytes.NewReader(data), ImportOptions{Reference: "x"}); err != nil {
			b.Fatal(err)
		}
	}
}

// Indexes that name each other's content over and over make no more of it.
func TestLoadOfAnIndexThatFansOut(t *testing.T) {
	f := open(t, t.TempDir())
	files := unpacked(t, f.saved(t, "hello"))
	hello, _ := f.Catalog.Resolve(context.Background(), "hello")
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: hello.Manifest.Digest, Size: hello.Manifest.Size}
	for range 7 {
		var index ocispec.Index
		for range 1000 {
			index.Manifests = append(index.Manifests, d)
		}
		data, _ := json.Marshal(index)
		d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
		files[blobFile(d.Digest)] = string(data)
	}
	top, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{d}})
	files["index.json"] = string(top)
	f.loaded(t, repacked(t, files))
	r, err := f.Inventory.Inspect(context.Background(), d.Digest.String(), inventory.InspectOptions{Manifests: true})
	if err != nil || len(r.Manifests) != 1 {
		t.Errorf("%d manifests, %v", len(r.Manifests), err)
	}
}

func TestLoadRefusesTooManyManifests(t *testing.T) {
	f := open(t, t.TempDir())
	before := f.shape(t)
	files := map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}
	index := func(list []ocispec.Descriptor) ocispec.Descriptor {
		data, _ := json.Marshal(ocispec.Index{Manifests: list})
		d := digest.FromBytes(data)
		files[blobFile(d)] = string(data)
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d, Size: int64(len(data))}
	}
	var halves []ocispec.Descriptor
	for half := range 2 {
		var list []ocispec.Descriptor
		for i := range catalog.MaxMembers/2 + 1 {
			list = append(list, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(half, i))})
		}
		halves = append(halves, index(list))
	}
	top, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{index(halves)}})
	files["index.json"] = string(top)
	err := f.Load(context.Background(), bytes.NewReader(repacked(t, files)), LoadOptions{}, nil)
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "more than 10000 manifests") {
		t.Error(err)
	}
	if diff := cmp.Diff(before, f.shape(t)); diff != "" {
		t.Error(diff)
	}
}

// FuzzLoad feeds the documents of an archive. What is loaded can be listed,
// looked at, saved and loaded again.
func FuzzLoad(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	seed := open(f, f.TempDir())
	files := unpacked(f, seed.saved(f, "hello"))
	hello, _ := seed.Catalog.Resolve(context.Background(), "hello")
	node := files[blobFile(hello.ID)]
	// The node's digest and size take the place of these words.
	index := strings.NewReplacer(hello.ID.String(), "DIGEST", fmt.Sprintf(`"size":%d`, len(node)), `"size":SIZE`).Replace(files["index.json"])
	f.Add(index, files["manifest.json"], node, true)
	f.Add(index, files["manifest.json"], node, false)
	f.Add(strings.ReplaceAll(index, "index.v1", "manifest.v1"), files["manifest.json"], files[blobFile(hello.Manifest.Digest)], true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, index, archived, node string, layout bool) {
		s, err := tryOpen(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.layers.Close()
		ctx := context.Background()
		given := map[string]string{"manifest.json": archived, blobFile(digest.FromString(node)): node}
		for name, data := range files {
			if strings.HasPrefix(name, "blobs/") {
				given[name] = data
			}
		}
		if layout {
			given["oci-layout"], given["index.json"] = files["oci-layout"],
				strings.NewReplacer("DIGEST", digest.FromString(node).String(), "SIZE", fmt.Sprint(len(node))).Replace(index)
		}
		if s.Load(ctx, bytes.NewReader(repacked(t, given)), LoadOptions{}, nil) != nil {
			return
		}
		list, err := s.Inventory.List(ctx, inventory.ListOptions{Manifests: true, SharedSize: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, sum := range list {
			if _, err := s.Inventory.Inspect(ctx, sum.ID, inventory.InspectOptions{Manifests: true}); err != nil {
				t.Error(err)
			}
			var saved bytes.Buffer
			if err := s.Save(ctx, &saved, []string{sum.ID}, SaveOptions{}); err != nil {
				t.Error(err)
			} else if err := s.Load(ctx, &saved, LoadOptions{}, nil); err != nil {
				t.Error(err)
			}
			if _, err := s.Remove(ctx, sum.ID, RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
	})
}
