package image

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/reference"
)

// Builds fetch images in pieces: what an image is, and its layers only when
// something needs them. Until a piece has a name only Hold keeps it.

// Describe learns from its registry what a name means. The index, the platform's
// manifest and its config are stored, and no layer.
func (t *Transfers) Describe(ctx context.Context, ref string, o PullOptions, progress func(Progress)) (target, manifest ocispec.Descriptor, err error) {
	r, err := reference.Parse(ref)
	if err != nil {
		return target, manifest, err
	}
	if o.Platform != "" {
		if _, err := platform.Parse(o.Platform); err != nil {
			return target, manifest, err
		}
	}
	at := r.Tag
	if r.Digest != "" {
		at = r.Digest
	}
	p := &pull{t: t, s: t.images, repo: t.registries.Repository(r, o.Credentials), ref: r, platform: o.Platform, progress: serial(progress),
		nodes: map[digest.Digest]bool{}, layers: map[digest.Digest]int64{}, describe: &manifest}
	defer t.images.content.Hold()()
	if target, err = p.repo.Resolve(ctx, at); err != nil {
		return target, manifest, pullError(r, err)
	}
	p.target = target
	if err = p.node(ctx, target, nil, 0); err == nil && manifest.Digest == "" {
		err = fault.New(fault.Invalid, "%s is no image", r.Familiar())
	}
	return target, manifest, err
}

// Document reads what a name means at its registry: a manifest or an index, which
// need be no image's.
func (t *Transfers) Document(ctx context.Context, ref string, c Credentials) (ocispec.Descriptor, []byte, error) {
	r, err := reference.Parse(ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	at := r.Tag
	if r.Digest != "" {
		at = r.Digest
	}
	d, data, err := t.registries.Repository(r, c).Manifest(ctx, at)
	if err != nil {
		return d, nil, pullError(r, err)
	}
	return d, data, nil
}

// Blob fetches a blob from the repository of a name, unless it is here.
func (t *Transfers) Blob(ctx context.Context, ref string, d ocispec.Descriptor, c Credentials, progress func(Progress)) error {
	r, err := reference.Parse(ref)
	if err != nil {
		return err
	}
	p := &pull{t: t, s: t.images, repo: t.registries.Repository(r, c), ref: r, progress: serial(progress), layers: map[digest.Digest]int64{}}
	defer t.images.content.Hold()()
	return p.layer(ctx, d, nil)
}

// PushContent sends a manifest or index, with all that it names, to the registry
// as what the name means. Here it has no name, and with a digest, which must be
// its own, it has none there either.
func (t *Transfers) PushContent(ctx context.Context, ref string, target ocispec.Descriptor, c Credentials, progress func(Progress)) error {
	r, err := reference.Parse(ref)
	if err != nil {
		return err
	}
	if r.Digest != "" && r.Digest != target.Digest.String() {
		return fault.New(fault.Invalid, "cannot push %s as %s: it has another digest", target.Digest, ref)
	}
	if r.Digest != "" {
		r.Tag = ""
	}
	defer t.images.content.Hold()()
	p := &push{t: t, s: t.images, repo: t.registries.Repository(r, c), ref: r, progress: serial(progress), sent: map[digest.Digest]bool{}}
	return p.node(ctx, target, r.Tag)
}

// Whole tells whether all layers of a manifest are here as blobs.
func (m *Making) Whole(manifest ocispec.Descriptor) bool {
	_, all := m.images.Catalog.Present(manifest)
	return all
}

// Unpack makes the layers that are missing of a chain, the lowest first, out of
// blobs that are here.
func (m *Making) Unpack(ctx context.Context, blobs []ocispec.Descriptor, diffIDs []digest.Digest) error {
	if len(blobs) != len(diffIDs) {
		return fault.New(fault.Internal, "%d blobs were given for %d layers", len(blobs), len(diffIDs))
	}
	defer m.Hold()()
	return m.images.unpacker.Unpack(ctx, blobs, diffIDs)
}

// Compress gives a layer's blob, which is here, in another compression.
func (m *Making) Compress(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest, how Recompressing) (ocispec.Descriptor, error) {
	defer m.Hold()()
	return newRecompressor(m.images, how).layer(ctx, d, diffID)
}

// Stored finds the blob of a layer as it is stored, whatever its compression.
func (m *Making) Stored(d ocispec.Descriptor) bool {
	size, ok := m.images.content.Size(d.Digest)
	return ok && size == d.Size
}

// Holds tells whether a blob that is stored holds the layer. It reads it once, and notes
// what that is.
func (m *Making) Holds(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (bool, error) {
	store := m.images.content
	if err := errors.Join(d.Digest.Validate(), diffID.Validate()); err != nil || !m.Stored(d) {
		return false, nil
	}
	if d.Digest == diffID || store.Noted(d.Digest, noteHolds) == diffID.String() {
		return true, nil
	}
	defer m.Hold()()
	blob, _, err := store.Open(d.Digest)
	if err != nil {
		return false, err
	}
	defer blob.Close()
	plain, _, err := compression.Decompress(blob)
	if err != nil {
		return false, nil // it is no layer at all
	}
	defer plain.Close()
	sum := diffID.Verifier()
	if _, err := io.CopyBuffer(sum, &cancellable{ctx, plain}, make([]byte, 1<<20)); err != nil {
		return false, ctx.Err()
	}
	if sum.Verified() {
		store.Note(d.Digest, noteHolds, diffID.String())
	}
	return sum.Verified(), nil
}

// noteHolds is the key of what a blob was found to hold.
const noteHolds = "holds"

// Difference makes a layer on nothing of what the tree of upper has beyond that of
// lower. What lower has and upper has not, the layer removes.
func (m *Making) Difference(ctx context.Context, lower, upper digest.Digest) (Made, error) {
	s := m.images
	defer m.Hold()()
	changes, err := s.layers.Difference(lower, upper)
	if err != nil {
		return Made{}, err
	}
	defer changes.Close()
	blob, err := s.content.Create(digest.SHA256)
	if err != nil {
		return Made{}, err
	}
	defer blob.Close()
	if _, err := changes.WriteLayer(ctx, blob, archive.WriteOptions{}); err != nil {
		return Made{}, err
	}
	size := blob.Size()
	d, err := blob.Commit("", -1)
	if err != nil {
		return Made{}, err
	}
	made := Made{Blob: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size}}
	made.Chain, err = m.unpack(ctx, "", d)
	return made, err
}
