package output

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/client"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// archive sends the client an OCI layout as a tar, with a manifest.json that
// docker load reads where there is one platform.
func (o *Writer) archive(ctx context.Context, w Wanted, results []Made) (err error) {
	if w.kind == "docker" {
		for _, m := range results {
			if len(results) > 1 || len(chosen(m.Attestations, w.inline)) > 0 {
				return fault.New(fault.Invalid, "docker exporter does not currently support exporting manifest lists: say type=oci")
			}
		}
	}
	vertex, end := progress.Task(o.Tells, "exporting to "+w.kind+" image format")
	defer func() { end(err) }()
	target, _, err := o.export(ctx, w, vertex, results)
	if err != nil {
		return err
	}
	if w.layout {
		defer progress.Part(o.Tells, vertex, "copying to the client's layout")()
		return o.lend(ctx, target)
	}
	defer progress.Part(o.Tells, vertex, "sending tarball")()
	return o.stream(ctx, w, func(to io.Writer) error {
		l := &layout{store: o.Store, tar: tar.NewWriter(to), has: map[digest.Digest]bool{}}
		return l.write(ctx, target, w.names)
	})
}

// exportStore is what a client calls the store that it lends for a layout. The
// client writes its index.
const exportStore = "export"

// lend writes an image with all that it is made of into the client's layout.
func (o *Writer) lend(ctx context.Context, target ocispec.Descriptor) error {
	caller := &client.Session{Caller: o.Caller}
	return walkImage(ctx, o.Store, target, func(d ocispec.Descriptor, r io.Reader) error {
		return caller.Keep(ctx, exportStore, d, r)
	})
}

// layout writes an image with all that it is made of.
type layout struct {
	store build.Store
	tar   *tar.Writer
	has   map[digest.Digest]bool

	single *ocispec.Manifest // the only manifest, as far as there is one
}

func (l *layout) write(ctx context.Context, target ocispec.Descriptor, names []string) error {
	if err := l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := l.tree(ctx, target); err != nil {
		return err
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range names {
		d := target
		_, tag, _ := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
		d.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: tag}
		index.Manifests = append(index.Manifests, d)
	}
	if len(names) == 0 {
		index.Manifests = []ocispec.Descriptor{target}
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := l.file("index.json", text); err != nil {
		return err
	}
	if l.single != nil {
		if err := l.dockerManifest(names); err != nil {
			return err
		}
	}
	return l.tar.Close()
}

func blobPath(d digest.Digest) string {
	return fmt.Sprintf("blobs/%s/%s", d.Algorithm(), d.Encoded())
}

// dockerManifest is what docker load reads.
func (l *layout) dockerManifest(names []string) error {
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(l.single.Config.Digest), Layers: []string{}}
	for _, name := range names {
		entry.RepoTags = append(entry.RepoTags, reference.Familiar(name))
	}
	for _, d := range l.single.Layers {
		entry.Layers = append(entry.Layers, blobPath(d.Digest))
	}
	text, err := json.Marshal([]any{entry})
	if err != nil {
		return err
	}
	return l.file("manifest.json", text)
}

func (l *layout) file(name string, text []byte) error {
	if err := l.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := l.tar.Write(text)
	return err
}

// tree writes a blob, and what it names.
func (l *layout) tree(ctx context.Context, target ocispec.Descriptor) error {
	manifests := 0
	err := walkImage(ctx, l.store, target, func(d ocispec.Descriptor, r io.Reader) error {
		if l.has[d.Digest] {
			return nil
		}
		l.has[d.Digest] = true
		if isManifest(d.MediaType) {
			text, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			l.single = new(ocispec.Manifest)
			if err := json.Unmarshal(text, l.single); err != nil {
				return err
			}
			manifests++
			return l.file(blobPath(d.Digest), text)
		}
		if err := l.tar.WriteHeader(&tar.Header{Name: blobPath(d.Digest), Mode: 0o644, Size: d.Size}); err != nil {
			return err
		}
		_, err := io.Copy(l.tar, r)
		return err
	})
	if manifests != 1 {
		l.single = nil
	}
	return err
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerList
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// walkImage visits what an image is made of, each thing after those that it names.
func walkImage(ctx context.Context, store build.Store, d ocispec.Descriptor, visit func(ocispec.Descriptor, io.Reader) error) error {
	in, err := store.Blob(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer in.Close()
	if !isIndex(d.MediaType) && !isManifest(d.MediaType) {
		return visit(d, in)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var content struct {
		Manifests []ocispec.Descriptor
		ocispec.Manifest
	}
	if err := json.Unmarshal(text, &content); err != nil {
		return err
	}
	below := content.Manifests
	if isManifest(d.MediaType) {
		below = append([]ocispec.Descriptor{content.Config}, content.Layers...)
	}
	for _, b := range below {
		if err := walkImage(ctx, store, b, visit); err != nil {
			return err
		}
	}
	return visit(d, bytes.NewReader(text))
}
