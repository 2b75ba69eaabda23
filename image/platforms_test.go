package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/image/platform"
)

// multi stores the image multi:1 of three platforms, the first of which has an
// attestation, and returns it as the files of an archive.
func (f fixture) multi(t testing.TB) map[string]string {
	t.Helper()
	ctx := context.Background()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	release := f.content.Hold()
	defer release()
	for _, platform := range []string{"linux/amd64", "linux/arm64", "linux/s390x"} {
		id, err := f.Import(ctx, bytes.NewReader(rootfs(t, file{"platform", platform}, file{"filler", strings.Repeat(platform, 60_000)})), ImportOptions{Platform: platform})
		if err != nil {
			t.Fatal(err)
		}
		img, err := f.Catalog.Resolve(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		img.Manifest.Platform = &img.Platform
		index.Manifests = append(index.Manifests, img.Manifest)
		if _, err := f.Remove(ctx, id, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	statement, err := f.content.PutJSON("application/vnd.in-toto+json", "a statement")
	if err != nil {
		t.Fatal(err)
	}
	config, _ := f.content.PutJSON(ocispec.MediaTypeImageConfig, struct{}{})
	attestation, _ := f.content.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{statement}})
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{catalog.AnnotationRefType: "attestation-manifest", catalog.AnnotationRefDigest: index.Manifests[0].Digest.String()}
	index.Manifests = append(index.Manifests, attestation)
	target, err := f.content.PutJSON(ocispec.MediaTypeImageIndex, index)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store([]content.Entry{{Name: "docker.io/library/multi:1", Target: target}}); err != nil {
		t.Fatal(err)
	}
	return unpacked(t, f.saved(t, "multi:1"))
}

// here lists the platforms of which all is here.
func (f fixture) here(t testing.TB, ref string) (id string, platforms []string) {
	t.Helper()
	r, err := f.Inventory.Inspect(context.Background(), ref, inventory.InspectOptions{Manifests: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Manifests {
		switch {
		case !m.Available:
		case m.ImageData != nil:
			platforms = append(platforms, platform.Format(m.ImageData.Platform))
		default:
			platforms = append(platforms, "attestation")
		}
	}
	return r.ID, platforms
}

func (f fixture) savedWith(t testing.TB, ref string, o SaveOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := f.Save(context.Background(), &buf, []string{ref}, o); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestSaveSeveralPlatforms(t *testing.T) {
	f := open(t, t.TempDir())
	f.multi(t)
	id, all := f.here(t, "multi:1")
	if want := []string{"linux/amd64", "linux/arm64", "linux/s390x", "attestation"}; !cmp.Equal(all, want) {
		t.Fatalf("the image has %v", all)
	}
	g := open(t, t.TempDir())
	g.loaded(t, f.savedWith(t, "multi:1", SaveOptions{Platforms: []string{"linux/amd64", "linux/s390x"}}))
	if got, platforms := g.here(t, "multi:1"); got != id || !cmp.Equal(platforms, []string{"linux/amd64", "linux/s390x", "attestation"}) {
		t.Errorf("%s has %v", got, platforms)
	}
	err := f.Save(context.Background(), &bytes.Buffer{}, []string{"multi:1"}, SaveOptions{Platforms: []string{"linux/amd64", "linux/mips"}})
	if !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestLoadPlatforms(t *testing.T) {
	f := open(t, t.TempDir())
	data := repacked(t, f.multi(t))
	for wanted, want := range map[string][]string{
		"linux/arm64":             {"linux/arm64"},
		"linux/amd64 linux/s390x": {"linux/amd64", "linux/s390x", "attestation"},
		"linux/arm64 linux/mips":  {"linux/arm64"},
	} {
		g := open(t, t.TempDir())
		if err := g.Load(context.Background(), bytes.NewReader(data), LoadOptions{Platforms: strings.Fields(wanted)}, nil); err != nil {
			t.Fatal(err)
		}
		if _, platforms := g.here(t, "multi:1"); !cmp.Equal(platforms, want) {
			t.Errorf("of %s: %v", wanted, platforms)
		}
		for _, name := range g.shape(t) {
			if d, ok := strings.CutPrefix(name, g.root+"/content/blobs/sha256/"); ok && !strings.Contains(string(g.savedWith(t, "multi:1", SaveOptions{})), d) && !strings.Contains(string(g.saved(t, "hello")), d) {
				t.Errorf("of %s: the blob %s is left", wanted, d)
			}
		}
	}
	g := open(t, t.TempDir())
	before := g.shape(t)
	err := g.Load(context.Background(), bytes.NewReader(data), LoadOptions{Platforms: []string{"linux/mips"}}, nil)
	if !errors.Is(err, fault.NotFound) || err.Error() != "requested platform (linux/mips) not found: image might be filtered out" {
		t.Error(err)
	}
	if diff := cmp.Diff(before, g.shape(t)); diff != "" {
		t.Error(diff)
	}
}

func TestRemovePlatforms(t *testing.T) {
	f := open(t, t.TempDir())
	f.multi(t)
	ctx := context.Background()
	id, _ := f.here(t, "multi:1")
	if err := f.Tag(ctx, "multi:1", "other:1"); err != nil {
		t.Fatal(err)
	}
	foreign, err := f.Catalog.Resolve(ctx, "multi:1")
	if err != nil {
		t.Fatal(err)
	}
	f.Catalog.SetInUse(func() map[digest.Digest][]catalog.Use {
		return map[digest.Digest][]catalog.Use{digest.Digest(id): {{Container: "0123456789abcdef", Running: true}}}
	})
	if _, err := f.Remove(ctx, "multi:1", RemoveOptions{Platforms: []string{platform.Format(foreign.Platform)}, Force: true}); !errors.Is(err, fault.Conflict) {
		t.Errorf("the platform that a container runs on: %v", err)
	}
	gone, err := f.Remove(ctx, "multi:1", RemoveOptions{Platforms: []string{"linux/s390x"}})
	if err != nil || len(gone) != 1 || gone[0].Deleted == "" {
		t.Fatal(gone, err)
	}
	f.Catalog.SetInUse(nil)
	if got, platforms := f.here(t, "other:1"); got != id || !cmp.Equal(platforms, []string{"linux/amd64", "linux/arm64", "attestation"}) {
		t.Errorf("%s has %v", got, platforms)
	}
	if _, err := f.Remove(ctx, "multi:1", RemoveOptions{Platforms: []string{"linux/s390x"}}); !errors.Is(err, fault.NotFound) {
		t.Errorf("a second time: %v", err)
	}
	if gone, err = f.Remove(ctx, "multi:1", RemoveOptions{Platforms: []string{"linux/amd64"}}); err != nil || len(gone) != 2 {
		t.Errorf("with its attestation: %v, %v", gone, err)
	}
	// What comes again makes it whole again.
	g := open(t, t.TempDir())
	f.loaded(t, repacked(t, g.multi(t)))
	if got, platforms := f.here(t, "multi:1"); len(platforms) != 4 {
		t.Errorf("%s has %v", got, platforms)
	}
	f.base(t)
	if _, err := f.Remove(ctx, "base:1", RemoveOptions{Platforms: []string{platform.Format(platform.Host())}}); !errors.Is(err, fault.Conflict) {
		t.Errorf("the only platform: %v", err)
	}
}

// layerTypes lists the media types of an image's layers, of all platforms.
func (f fixture) layerTypes(t testing.TB, ref string) (types []string) {
	t.Helper()
	found, err := catalog.Lookup(f.content.Index(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range f.Catalog.Members(found.Target) {
		if m.Detail != nil {
			for _, l := range m.Detail.Manifest.Layers {
				types = append(types, l.MediaType)
			}
		}
	}
	slices.Sort(types)
	return slices.Compact(types)
}

func TestSaveRecompressed(t *testing.T) {
	f := open(t, t.TempDir())
	f.multi(t)
	f.loaded(t, legacy(t, nil))
	before := f.shape(t)
	var plain []byte
	for _, ref := range []string{"multi:1", "old:1"} {
		img, err := f.Catalog.Resolve(context.Background(), ref)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []compression.Kind{compression.Gzip, compression.Zstd, compression.Plain} {
			how := SaveOptions{Recompress: &Recompressing{Compression: c}}
			data := f.savedWith(t, ref, how)
			if !bytes.Equal(data, f.savedWith(t, ref, how)) {
				t.Errorf("%s by %s: the second archive is another one", ref, c)
			}
			g := open(t, t.TempDir())
			g.loaded(t, data)
			got, err := g.Catalog.Resolve(context.Background(), ref)
			if err != nil || got.ChainID != img.ChainID || !cmp.Equal(got.Config, img.Config) {
				t.Errorf("%s by %s: %v, %v", ref, c, got, err)
			}
			want := map[compression.Kind]string{compression.Gzip: ocispec.MediaTypeImageLayerGzip, compression.Zstd: ocispec.MediaTypeImageLayerZstd, compression.Plain: ocispec.MediaTypeImageLayer}[c]
			if ref == "old:1" && c != compression.Zstd {
				want = map[compression.Kind]string{compression.Gzip: content.DockerLayerGzip, compression.Plain: content.DockerLayer}[c]
			}
			if types := g.layerTypes(t, ref); !cmp.Equal(types, []string{want}) {
				t.Errorf("%s by %s: layers of %v", ref, c, types)
			}
			if c == compression.Plain && got.ID != img.ID {
				t.Errorf("%s: layers that are plain already make the image %s", ref, got.ID)
			}
			if ref == "multi:1" {
				back := g.savedWith(t, ref, SaveOptions{Recompress: &Recompressing{Compression: compression.Plain}})
				if c == compression.Gzip {
					plain = back
				} else if c == compression.Zstd && !bytes.Equal(back, plain) {
					t.Errorf("%s back from %s is another archive than from gzip", ref, c)
				}
				if _, platforms := g.here(t, ref); len(platforms) != 4 {
					t.Errorf("%s by %s has %v", ref, c, platforms)
				}
				g.checkAttested(t, ref)
			}
		}
	}
	if diff := cmp.Diff(before, f.shape(t)); diff != "" {
		t.Errorf("saving left something:\n%s", diff)
	}
}

// checkAttested looks whether the attestation is about a manifest of the image.
func (f fixture) checkAttested(t testing.TB, ref string) {
	t.Helper()
	found, err := catalog.Lookup(f.content.Index(), ref)
	if err != nil {
		t.Fatal(err)
	}
	members := f.Catalog.Members(found.Target)
	if last := members[len(members)-1]; last.Attests != members[0].Desc.Digest {
		t.Errorf("the attestation is about %s and not %s", last.Attests, members[0].Desc.Digest)
	}
}

// A layer that is not what its config promises is not carried on.
func TestSaveRecompressedChecksDiffIDs(t *testing.T) {
	f := open(t, t.TempDir())
	files := f.multi(t)
	g := open(t, t.TempDir())
	for name, data := range files {
		var config ocispec.Image
		if json.Unmarshal([]byte(data), &config) == nil && config.Architecture == "s390x" {
			config.RootFS.DiffIDs[0] = digest.FromString("lie")
			changed, _ := json.Marshal(config)
			// The same config blob is named by all; each name in the archive follows.
			delete(files, name)
			old, now := strings.TrimPrefix(name, "blobs/sha256/"), digest.FromBytes(changed)
			files = renamed(files, old, len(data), now.Encoded(), len(changed))
			files[blobFile(now)] = string(changed)
		}
	}
	g.loaded(t, repacked(t, files))
	err := g.Save(context.Background(), &bytes.Buffer{}, []string{"multi:1"}, SaveOptions{Recompress: &Recompressing{Compression: compression.Gzip}})
	if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "does not have the digest") {
		t.Error(err)
	}
}

// renamed gives an archive's blob another digest and size, and all blobs that
// name it, in turn.
func renamed(files map[string]string, old string, oldSize int, now string, size int) map[string]string {
	todo := [][2]string{{old, now}}
	sizes := map[string][2]int{old: {oldSize, size}}
	for len(todo) > 0 {
		pair := todo[0]
		todo = todo[1:]
		for name, data := range files {
			if !strings.Contains(data, pair[0]) || len(data) > 10000 {
				continue
			}
			changed := strings.ReplaceAll(data, pair[0], pair[1])
			s := sizes[pair[0]]
			changed = strings.ReplaceAll(changed, "\"sha256:"+pair[1]+"\",\"size\":"+strconv.Itoa(s[0]), "\"sha256:"+pair[1]+"\",\"size\":"+strconv.Itoa(s[1]))
			if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
				delete(files, name)
				next := digest.FromString(changed)
				todo = append(todo, [2]string{hex, next.Encoded()})
				sizes[hex] = [2]int{len(data), len(changed)}
				name = blobFile(next)
			}
			files[name] = changed
		}
	}
	return files
}

func TestSkopeoReadsWhatIsRecompressed(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	f := open(t, t.TempDir())
	f.base(t)
	img, _ := f.Catalog.Resolve(context.Background(), "base:1")
	for _, c := range []compression.Kind{compression.Gzip, compression.Zstd} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/saved.tar", f.savedWith(t, "base:1", SaveOptions{Recompress: &Recompressing{Compression: c}}), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"copy", "oci-archive:" + dir + "/saved.tar:1", "dir:" + dir + "/dir"},
			{"copy", "oci-archive:" + dir + "/saved.tar:1", "oci-archive:" + dir + "/again.tar:base:1"},
		} {
			cmd := exec.Command("skopeo", args...)
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: skopeo %v: %v\n%s", c, args, err, out)
			}
		}
		data, err := os.ReadFile(dir + "/again.tar")
		if err != nil {
			t.Fatal(err)
		}
		g := open(t, t.TempDir())
		g.loaded(t, data)
		if got, err := g.Catalog.Resolve(context.Background(), "base:1"); err != nil || got.ChainID != img.ChainID {
			t.Errorf("%s: %v, %v", c, got, err)
		}
	}
}

// A platform that is removed while the image is being saved is in the archive
// all the same.
func TestRemovePlatformsBesideSave(t *testing.T) {
	f := open(t, t.TempDir())
	f.multi(t)
	want := f.savedWith(t, "multi:1", SaveOptions{})
	w := &meddler{do: func() {
		if _, err := f.Remove(context.Background(), "multi:1", RemoveOptions{Platforms: []string{"linux/s390x"}}); err != nil {
			t.Error(err)
		}
		if _, platforms := f.here(t, "multi:1"); slices.Contains(platforms, "linux/s390x") {
			t.Errorf("what was removed is here: %v", platforms)
		}
	}}
	if err := f.Save(context.Background(), w, []string{"multi:1"}, SaveOptions{}); err != nil || !bytes.Equal(w.Bytes(), want) {
		t.Errorf("%d bytes instead of %d: %v", w.Len(), len(want), err)
	}
	if now := f.savedWith(t, "multi:1", SaveOptions{}); len(now) >= len(want) {
		t.Errorf("what was removed is saved: %d bytes of %d", len(now), len(want))
	}
}

// meddler does something before the first byte.
type meddler struct {
	bytes.Buffer
	do func()
}

func (m *meddler) Write(p []byte) (int, error) {
	if m.do != nil {
		m.do()
		m.do = nil
	}
	return m.Buffer.Write(p)
}
