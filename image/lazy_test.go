package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// lazy makes, with their authors' program, a layer that can be read in parts:
// eStargz, or zstd:chunked when the type of the layer says zstd.
func lazy(t *testing.T, mediaType string, plain []byte) (blob []byte, d ocispec.Descriptor, diffID digest.Digest) {
	t.Helper()
	d.MediaType, d.Annotations = mediaType, map[string]string{}
	options := []estargz.Option{estargz.WithChunkSize(1000)}
	if strings.HasSuffix(mediaType, "+zstd") {
		options = append(options, estargz.WithCompression(&struct {
			*zstdchunked.Compressor
			*zstdchunked.Decompressor
		}{&zstdchunked.Compressor{CompressionLevel: zstd.SpeedDefault, Metadata: d.Annotations}, &zstdchunked.Decompressor{}}))
	}
	built, err := estargz.Build(io.NewSectionReader(bytes.NewReader(plain), 0, int64(len(plain))), options...)
	if err != nil {
		t.Fatal(err)
	}
	blob, err = io.ReadAll(built)
	if err := errors.Join(err, built.Close()); err != nil {
		t.Fatal(err)
	}
	d.Annotations[estargz.TOCJSONDigestAnnotation] = built.TOCDigest().String()
	d.Digest, d.Size = digest.FromBytes(blob), int64(len(blob))
	return blob, d, built.DiffID()
}

// checkLazy reads the blob as those do who fetch it in parts.
func checkLazy(t *testing.T, blob []byte, d ocispec.Descriptor, name string) {
	t.Helper()
	r, err := estargz.Open(io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob))), estargz.WithDecompressors(&zstdchunked.Decompressor{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.VerifyTOC(digest.Digest(d.Annotations[estargz.TOCJSONDigestAnnotation])); err != nil {
		t.Error(err)
	}
	if _, ok := r.Lookup(name); !ok {
		t.Errorf("%s is not in the table of contents", name)
	}
}

// Layers that can be read in parts are pulled and pushed to the byte, with what
// is said of them, and unpacked as any others.
func TestLazyLayers(t *testing.T) {
	testutil.RequireRoot(t)
	from, to := registry.Start(t, registry.Options{}), registry.Start(t, registry.Options{})
	img := images.Make(t, images.Spec{Files: 20, Size: 4096, Compression: "none", Seed: 3})
	plain := read(t, images.Layout(img.Dir).Path(img.Layers[0].Digest))
	for mediaType, program := range map[string]string{ocispec.MediaTypeImageLayerGzip: "gzip", ocispec.MediaTypeImageLayerZstd: "zstd"} {
		blob, layer, diffID := lazy(t, mediaType, plain)
		checkLazy(t, blob, layer, "layer0/0/file1")
		f, tr := transfers(t, t.TempDir())
		name := from.Host + "/" + program + ":1"
		config := img.Config
		config.RootFS.DiffIDs = []digest.Digest{diffID}
		f.putLayer(t, name, config, layer, blob)
		if err := tr.Push(t.Context(), name, PushOptions{}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		g, tr := transfers(t, t.TempDir())
		if err := tr.Pull(t.Context(), name, PullOptions{}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		got, err := g.Catalog.Resolve(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		m, err := g.layers.Prepare("c", got.ChainID)
		if err != nil {
			t.Fatal(err)
		}
		want, tree := extracted(t, program, blob), images.Tree(t, m.Lower[0])
		delete(want, ".") // the layer does not tell its time
		delete(tree, ".")
		if diff := cmp.Diff(want, tree); diff != "" {
			t.Errorf("%s is unpacked as\n%s", program, diff)
		}
		other := to.Host + "/" + program + ":1"
		if err := g.Tag(t.Context(), name, other); err != nil {
			t.Fatal(err)
		}
		if err := tr.Push(t.Context(), other, PushOptions{}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		back := pushedLayer(t, to, program)
		if diff := cmp.Diff(layer, back); diff != "" {
			t.Errorf("%s was pushed as\n%s", program, diff)
		}
		data, err := to.Get("/v2/" + program + "/blobs/" + back.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		checkLazy(t, data, back, "layer0/0/file1")
		// What is packed anew has no parts any more, and must not say so.
		how := compression.Gzip
		if program == "gzip" {
			how = compression.Zstd
		}
		if err := tr.Push(t.Context(), other, PushOptions{Recompress: &Recompressing{Compression: how}}, func(Progress) {}); err != nil {
			t.Fatal(err)
		}
		if again := pushedLayer(t, to, program); again.Digest == back.Digest || len(again.Annotations) != 0 {
			t.Errorf("%s was packed anew as %+v", program, again)
		}
	}
}

// putLayer puts an image of one layer under a name.
func (f fixture) putLayer(t *testing.T, name string, config ocispec.Image, layer ocispec.Descriptor, blob []byte) {
	t.Helper()
	release := f.content.Hold()
	defer release()
	_, err := f.content.Put(blob)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.content.PutJSON(ocispec.MediaTypeImageConfig, config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.content.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest, Config: c, Layers: []ocispec.Descriptor{layer}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.content.Update(func(ix *content.Index) (*content.Index, error) {
		return ix.With(content.Entry{Name: name, Target: m}), nil
	}); err != nil {
		t.Fatal(err)
	}
}

// pushedLayer is the layer of an image that a registry has.
func pushedLayer(t *testing.T, r *registry.Registry, repository string) ocispec.Descriptor {
	t.Helper()
	data, err := r.Get("/v2/"+repository+"/manifests/1", ocispec.MediaTypeImageManifest)
	if err != nil {
		t.Fatal(err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m.Layers[0]
}

// extracted is the tree that tar makes of a compressed layer.
func extracted(t *testing.T, program string, blob []byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", "set -o pipefail; "+program+" -dc | tar -x -p --numeric-owner -C "+dir)
	cmd.Stdin = bytes.NewReader(blob)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return images.Tree(t, dir)
}
