package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
)

// Recompressing is how the layers of an image are to be compressed.
type Recompressing struct {
	Compression compression.Kind // compression.Plain for none
	Level       int              // 0 for the usual one, see compression.Compress
}

// ParseRecompressing reads a compression's name: gzip, zstd, or none.
func ParseRecompressing(name string, level int) (*Recompressing, error) {
	c, err := compression.Parse(name)
	if err != nil {
		return nil, err
	}
	// What it refuses is refused before anything is sent.
	w, err := compression.Compress(io.Discard, c, level)
	if err != nil {
		return nil, err
	}
	w.Close()
	return &Recompressing{c, level}, nil
}

// recompressor makes images whose layers are compressed otherwise. What it
// makes is stored without a name: the caller holds the content.
type recompressor struct {
	s      *Service
	how    Recompressing
	only   map[digest.Digest]bool                         // the manifests that count, nil for all
	have   func(context.Context, ocispec.Descriptor) bool // tells that a layer is not needed here, nil for none
	made   map[digest.Digest]ocispec.Descriptor           // manifests and indexes, by what they were made from
	layers map[digest.Digest]ocispec.Descriptor
}

func newRecompressor(s *Service, how Recompressing) *recompressor {
	return &recompressor{s: s, how: how, made: map[digest.Digest]ocispec.Descriptor{}, layers: map[digest.Digest]ocispec.Descriptor{}}
}

// target gives the manifest or index with its layers compressed anew. Layers that
// are compressed so already, and all that is no layer of an image, are as
// they were; what is not here stays named as it is. The same image gives the same
// digest. Docker's types, which know no zstd, become OCI's for it.
func (r *recompressor) target(ctx context.Context, d ocispec.Descriptor, depth int) (ocispec.Descriptor, error) {
	if made, ok := r.made[d.Digest]; ok {
		return described(made, d), nil
	}
	if _, here := r.s.content.Size(d.Digest); !here || !content.IsNode(d.MediaType) {
		return d, nil
	}
	if r.only != nil && !content.IsIndex(d.MediaType) && !r.only[d.Digest] {
		return d, nil
	}
	if depth > catalog.MaxNesting {
		return d, fault.New(fault.Invalid, "the indexes of image %s are nested too deep", d.Digest)
	}
	data, err := r.s.content.Read(d.Digest, catalog.MaxNode)
	if err != nil {
		return d, err
	}
	doc := map[string]json.RawMessage{} // fields that we do not know are kept
	if err := json.Unmarshal(data, &doc); err != nil {
		return d, fault.New(fault.Invalid, "%s cannot be read: %w", d.Digest, err)
	}
	var changed bool
	made := d
	if content.IsIndex(d.MediaType) {
		changed, err = r.index(ctx, doc, depth)
	} else {
		changed, err = r.manifest(ctx, doc, d)
	}
	if err != nil {
		return d, err
	}
	if changed {
		if made, err = r.put(doc, d); err != nil {
			return d, err
		}
	}
	r.made[d.Digest] = made
	return described(made, d), nil
}

// described is what was made, with what the old descriptor says of it.
func described(made, old ocispec.Descriptor) ocispec.Descriptor {
	old.MediaType, old.Digest, old.Size = made.MediaType, made.Digest, made.Size
	return old
}

func (r *recompressor) put(doc map[string]json.RawMessage, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	mediaType := d.MediaType
	if r.how.Compression == compression.Zstd {
		switch mediaType {
		case content.DockerManifest:
			mediaType = ocispec.MediaTypeImageManifest
		case content.DockerManifestList:
			mediaType = ocispec.MediaTypeImageIndex
		}
	}
	if err := set(doc, "mediaType", mediaType); err != nil {
		return d, err
	}
	return r.s.content.PutJSON(mediaType, doc)
}

func set(doc map[string]json.RawMessage, key string, v any) error {
	data, err := json.Marshal(v)
	doc[key] = data
	return err
}

// index makes the manifests of an index anew. Attestations name the manifest
// that they are about.
func (r *recompressor) index(ctx context.Context, doc map[string]json.RawMessage, depth int) (changed bool, err error) {
	var list []ocispec.Descriptor
	if err := json.Unmarshal(doc["manifests"], &list); err != nil {
		return false, fault.New(fault.Invalid, "an index cannot be read: %w", err)
	}
	for i, d := range list {
		if list[i], err = r.target(ctx, d, depth+1); err != nil {
			return false, err
		}
		changed = changed || list[i].Digest != d.Digest
	}
	for i, d := range list {
		if about, ok := r.made[digest.Digest(d.Annotations[catalog.AnnotationRefDigest])]; ok && about.Digest.String() != d.Annotations[catalog.AnnotationRefDigest] {
			list[i].Annotations = maps.Clone(d.Annotations)
			list[i].Annotations[catalog.AnnotationRefDigest] = about.Digest.String()
			changed = true
		}
	}
	return changed, set(doc, "manifests", list)
}

// manifest makes the layers of an image's manifest anew; one of something else
// stays.
func (r *recompressor) manifest(ctx context.Context, doc map[string]json.RawMessage, d ocispec.Descriptor) (changed bool, err error) {
	detail, err := r.s.Catalog.Detail(d)
	if err != nil { // not an image, or not to be read: it is saved as it is
		return false, nil
	}
	var m ocispec.Manifest
	for key, to := range map[string]any{"layers": &m.Layers, "config": &m.Config} {
		if err := json.Unmarshal(doc[key], to); err != nil {
			return false, fault.New(fault.Invalid, "manifest %s cannot be read: %w", d.Digest, err)
		}
	}
	for i, layer := range m.Layers {
		if _, here := r.s.content.Size(layer.Digest); !here || !catalog.IsLayer(layer) {
			continue
		}
		if m.Layers[i], err = r.layer(ctx, layer, detail.Config.RootFS.DiffIDs[i]); err != nil {
			return false, fmt.Errorf("cannot compress layer %s anew: %w", layer.Digest, err)
		}
		changed = changed || m.Layers[i].Digest != layer.Digest
	}
	if !changed {
		return false, nil
	}
	if r.how.Compression == compression.Zstd && m.Config.MediaType == content.DockerConfig {
		m.Config.MediaType = ocispec.MediaTypeImageConfig
		for i := range m.Layers {
			m.Layers[i].MediaType = ociLayer(m.Layers[i].MediaType)
		}
		if err := set(doc, "config", m.Config); err != nil {
			return false, err
		}
	}
	return true, set(doc, "layers", m.Layers)
}

// ociLayer is OCI's type of a layer that Docker's type is of.
func ociLayer(mediaType string) string {
	switch mediaType {
	case content.DockerLayer:
		return ocispec.MediaTypeImageLayer
	case content.DockerLayerGzip:
		return ocispec.MediaTypeImageLayerGzip
	case content.DockerLayer + ".zstd":
		return ocispec.MediaTypeImageLayerZstd
	}
	return mediaType
}

// layer compresses one layer anew, through the store and not through memory.
func (r *recompressor) layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (ocispec.Descriptor, error) {
	if made, ok := r.layers[d.Digest]; ok {
		return described(made, d), nil
	}
	if made, ok := r.noted(ctx, d); ok {
		r.layers[d.Digest] = made
		return made, nil
	}
	made, err := r.pack(ctx, d, diffID)
	if err != nil {
		return d, err
	}
	r.layers[d.Digest] = made
	return made, nil
}

// pack makes the new form of a layer, unless it has it.
func (r *recompressor) pack(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (ocispec.Descriptor, error) {
	blob, _, err := r.s.content.Open(d.Digest)
	if err != nil {
		return d, err
	}
	defer blob.Close()
	plain, is, err := compression.Decompress(blob)
	if err != nil {
		return d, err
	}
	defer plain.Close()
	if is == r.how.Compression {
		return d, nil
	}
	w, err := r.s.content.Create(digest.SHA256)
	if err != nil {
		return d, err
	}
	defer w.Close()
	z, err := compression.Compress(w, r.how.Compression, r.how.Level)
	if err != nil {
		return d, err
	}
	sum := diffID.Verifier()
	if _, err := io.CopyBuffer(z, io.TeeReader(&cancellable{ctx, plain}, sum), make([]byte, 1<<20)); err != nil {
		z.Close()
		return d, err
	}
	if err := z.Close(); err != nil {
		return d, err
	}
	if !sum.Verified() {
		return d, fault.New(fault.Invalid, "layer content does not have the digest %s that the image promises", diffID)
	}
	packed, err := w.Commit("", -1)
	if err != nil {
		return d, err
	}
	r.s.content.Note(d.Digest, r.note(), packed.String()+" "+strconv.FormatInt(w.Size(), 10))
	return r.packed(d, packed, w.Size()), nil
}

// packed describes the layer in its new form.
func (r *recompressor) packed(d ocispec.Descriptor, packed digest.Digest, size int64) ocispec.Descriptor {
	d.Digest, d.Size, d.MediaType = packed, size, layerTypeOf(d.MediaType, r.how.Compression)
	d.Annotations = withoutOffsets(d.Annotations)
	return d
}

// note is the key under which is noted what a layer becomes.
func (r *recompressor) note() string {
	return fmt.Sprintf("packed.%d.%s.%d", packing, r.how.Compression, r.how.Level)
}

// packing counts the changes of what compression.Compress makes of the same bytes.
const packing = 1

// noted finds what the layer became earlier, if that is here or wherever it is
// needed, so that it is not compressed again.
func (r *recompressor) noted(ctx context.Context, d ocispec.Descriptor) (ocispec.Descriptor, bool) {
	hash, length, ok := strings.Cut(r.s.content.Noted(d.Digest, r.note()), " ")
	size, err := strconv.ParseInt(length, 10, 64)
	packed := digest.Digest(hash)
	if !ok || err != nil || packed.Validate() != nil {
		return d, false
	}
	made := r.packed(d, packed, size)
	if here, ok := r.s.content.Size(packed); ok && here == size {
		return made, true
	}
	return made, r.have != nil && r.have(ctx, made)
}

// cancellable reads until its context ends.
type cancellable struct {
	ctx context.Context
	io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// layerTypeOf is the type of the layer with another compression, in the same
// family.
func layerTypeOf(mediaType string, c compression.Kind) string {
	base, plus := strings.CutPrefix(mediaType, "application/vnd.oci.")
	if plus {
		base, _, _ = strings.Cut(mediaType, "+")
		return base + map[compression.Kind]string{compression.Gzip: "+gzip", compression.Zstd: "+zstd"}[c]
	}
	base = strings.TrimSuffix(strings.TrimSuffix(mediaType, ".gzip"), ".zstd")
	return base + map[compression.Kind]string{compression.Gzip: ".gzip", compression.Zstd: ".zstd"}[c]
}

// offsets begins what says where in the compressed bytes something is: of
// eStargz, and of zstd:chunked as containers/storage and stargz write it.
var offsets = []string{"containerd.io/snapshot/stargz/", "io.containers.estargz.", "io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."}

// withoutOffsets drops those annotations.
func withoutOffsets(annotations map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range annotations {
		if slices.ContainsFunc(offsets, func(prefix string) bool { return strings.HasPrefix(k, prefix) }) {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[k] = v
	}
	return kept
}
