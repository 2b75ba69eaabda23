package output

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// archive sends the client an OCI layout as a tar, with a manifest.json that
// docker load reads where there is one platform.
func (o *Writer) archive(ctx context.Context, w Wanted, results []Made) (err error) {
	if w.kind == "docker" && len(results) > 1 {
		return fault.New(fault.Invalid, "the output type=docker takes one platform: say type=oci")
	}
	vertex, end := progress.Task(o.Tells, "exporting to "+w.kind+" image format")
	defer func() { end(err) }()
	done := progress.Part(o.Tells, vertex, "exporting layers")
	x := &exporter{store: o.Store, epoch: w.epoch, annotations: w.annotations}
	target, _, err := x.target(ctx, results)
	if err != nil {
		return err
	}
	done()
	if err := o.say(w, target); err != nil {
		return err
	}
	defer progress.Part(o.Tells, vertex, "sending tarball")()
	return o.stream(ctx, w, func(to io.Writer) error {
		l := &layout{store: o.Store, tar: tar.NewWriter(to), has: map[digest.Digest]bool{}}
		return l.write(ctx, target, w.names)
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
func (l *layout) tree(ctx context.Context, d ocispec.Descriptor) error {
	if l.has[d.Digest] {
		return nil
	}
	l.has[d.Digest] = true
	in, err := l.store.Blob(ctx, d.Digest)
	if err != nil {
		return err
	}
	defer in.Close()
	if d.MediaType != ocispec.MediaTypeImageIndex && d.MediaType != ocispec.MediaTypeImageManifest {
		if err := l.tar.WriteHeader(&tar.Header{Name: blobPath(d.Digest), Mode: 0o644, Size: d.Size}); err != nil {
			return err
		}
		_, err := io.Copy(l.tar, in)
		return err
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
	if d.MediaType == ocispec.MediaTypeImageManifest {
		l.single = &content.Manifest
		below = append([]ocispec.Descriptor{content.Config}, content.Layers...)
	}
	for _, b := range below {
		if err := l.tree(ctx, b); err != nil {
			return err
		}
	}
	if len(content.Manifests) > 1 {
		l.single = nil
	}
	return l.file(blobPath(d.Digest), text)
}
