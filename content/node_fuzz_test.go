package content

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// FuzzNode reads bytes as each kind of manifest and index. What is taken can be
// walked, ends, and is not two kinds at once.
func FuzzNode(f *testing.F) {
	types := []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, DockerManifest, DockerManifestList}
	blob := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("x"), Size: 1}
	for _, doc := range []any{
		ocispec.Manifest{MediaType: types[0], Config: blob, Layers: []ocispec.Descriptor{blob, blob}},
		ocispec.Manifest{ArtifactType: "application/x", Config: ocispec.DescriptorEmptyJSON, Subject: &blob},
		ocispec.Index{MediaType: types[1], Manifests: []ocispec.Descriptor{{MediaType: types[0], Digest: blob.Digest, Platform: &ocispec.Platform{OS: "linux"}}}},
		map[string]any{"schemaVersion": 1, "fsLayers": []any{map[string]any{"blobSum": blob.Digest}}},
		map[string]any{"manifests": []any{blob}, "layers": []any{blob}},
	} {
		data, err := json.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Put(data)
		if err != nil {
			t.Fatal(err)
		}
		kinds := 0
		for _, mediaType := range types {
			desc := ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
			n, err := s.Node(desc)
			if err != nil {
				if !errors.Is(err, fault.Invalid) {
					t.Errorf("%s: %v", mediaType, err)
				}
				continue
			}
			if (n.Index == nil) == (n.Manifest == nil) || (n.Index != nil) != IsIndex(mediaType) {
				t.Errorf("%s is read as %+v", mediaType, n)
			}
			if n.Index != nil && len(n.Index.Manifests) > 0 {
				kinds |= 1
			}
			if n.Manifest != nil && len(n.Children()) > 0 {
				kinds |= 2
			}
			visited := 0
			if err := s.Walk(desc, func(ocispec.Descriptor, int64) error { visited++; return nil }); err == nil && visited == 0 {
				t.Errorf("the walk of %s saw nothing", mediaType)
			}
		}
		if kinds == 3 {
			t.Errorf("an index and a manifest at once: %s", data)
		}
		os.Remove(s.path("blobs/sha256/" + d.Encoded()))
	})
}
