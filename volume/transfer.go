package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// What a volume is in a registry: an artifact (OCI image specification, manifest.md,
// "Guidelines for Artifact Usage") with one layer, the tar of its content.
const (
	ArtifactType = "application/vnd.tare.volume.v1"
	layerType    = ocispec.MediaTypeImageLayerZstd
	sizeNote     = "dev.tare.volume.size" // bytes of the tar
)

// Transfers move volumes between here and registries.
type Transfers struct {
	volumes    *Service
	registries *remote.Client
}

// NewTransfers begins with nothing under way.
func NewTransfers(volumes *Service, registries *remote.Client) *Transfers {
	return &Transfers{volumes, registries}
}

// Progress is one step of a transfer.
type Progress struct {
	ID             string // the beginning of the layer's digest, "" for what is about the whole
	Status         string
	Current, Total int64 // bytes; Total is 0 where there is nothing to count
}

// PushOptions say how a volume is pushed, and for whom.
type PushOptions struct {
	Freeze      bool // see OpenExport
	Credentials remote.Credentials
}

// Push sends the content of a volume to the registry that the reference names.
func (t *Transfers) Push(ctx context.Context, name, ref string, o PushOptions, progress func(Progress)) error {
	to, err := parse(ref)
	if err != nil {
		return err
	}
	repo := t.registries.Repository(to, o.Credentials)
	progress(Progress{Status: "The push refers to repository [" + to.Repository() + "]"})
	progress(Progress{Status: "Packing volume " + name})
	packed, err := t.pack(ctx, name, o.Freeze)
	if err != nil {
		return err
	}
	defer packed.Close()
	layer := packed.layer
	id := layer.Digest.Encoded()[:12]
	has, err := repo.HasBlob(ctx, layer.Digest)
	if err != nil {
		return err
	}
	if has {
		progress(Progress{ID: id, Status: "Layer already exists"})
	} else {
		err := repo.PushBlob(ctx, layer, packed.from, func(done int64) {
			progress(Progress{ID: id, Status: "Pushing", Current: done, Total: layer.Size})
		})
		if err != nil {
			return err
		}
		progress(Progress{ID: id, Status: "Pushed"})
	}
	d, data, err := artifact(name, layer)
	if err == nil {
		err = repo.PushBlob(ctx, ocispec.DescriptorEmptyJSON, func(offset int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(ocispec.DescriptorEmptyJSON.Data[offset:])), nil
		}, nil)
	}
	if err == nil {
		err = repo.PushManifest(ctx, d, data, to.Tag)
	}
	if err != nil {
		return err
	}
	progress(Progress{Status: to.Tag + ": digest: " + d.Digest.String() + " size: " + strconv.FormatInt(d.Size, 10)})
	return nil
}

// parse reads the name of an artifact, which has a tag.
func parse(ref string) (reference.Ref, error) {
	r, err := reference.Parse(ref)
	if err == nil && r.Digest != "" {
		err = fault.New(fault.Invalid, "cannot push to the digest of %s: give a tag", ref)
	}
	return r, err
}

// artifact makes the manifest of a volume.
func artifact(name string, layer ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	config := ocispec.DescriptorEmptyJSON
	config.Data = nil
	data, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType,
		Config: config, Layers: []ocispec.Descriptor{layer},
		Annotations: map[string]string{ocispec.AnnotationCreated: time.Now().UTC().Format(time.RFC3339), ocispec.AnnotationTitle: name},
	})
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data, err
}

// packed is a volume's layer in a file without a name, which goes with its
// descriptor.
type packed struct {
	*os.File
	layer ocispec.Descriptor
}

// from reads the layer from an offset on.
func (p *packed) from(offset int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(p.File, offset, p.layer.Size-offset)), nil
}

func (t *Transfers) pack(ctx context.Context, name string, freeze bool) (_ *packed, err error) {
	e, err := t.volumes.OpenExport(ctx, name, freeze)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	file, err := t.volumes.scratch()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	sum := digest.Canonical.Digester()
	z, err := compression.Compress(io.MultiWriter(file, sum.Hash()), compression.Zstd, 0)
	if err != nil {
		return nil, err
	}
	plain := &counter{w: z}
	if err := e.Write(ctx, plain); err != nil {
		return nil, errors.Join(err, z.Close())
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	return &packed{file, ocispec.Descriptor{
		MediaType: layerType, Digest: sum.Digest(), Size: size,
		Annotations: map[string]string{ocispec.AnnotationTitle: name + ".tar.zst", sizeNote: strconv.FormatInt(plain.n, 10)},
	}}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Pull makes a volume of what a registry has under the reference.
func (t *Transfers) Pull(ctx context.Context, ref string, req ImportRequest, who remote.Credentials, progress func(Progress)) (wire.Volume, error) {
	from, err := reference.Parse(ref)
	if err != nil {
		return wire.Volume{}, err
	}
	what := from.Tag
	if from.Digest != "" {
		what = from.Digest
	}
	repo := t.registries.Repository(from, who)
	progress(Progress{Status: "Pulling from " + from.FamiliarRepository()})
	d, data, err := repo.Manifest(ctx, what)
	if err != nil {
		return wire.Volume{}, err
	}
	layer, err := layerOf(ref, d, data)
	if err != nil {
		return wire.Volume{}, err
	}
	blob, err := repo.Blob(ctx, layer, 0, -1)
	if err != nil {
		return wire.Volume{}, err
	}
	defer blob.Close()
	id := layer.Digest.Encoded()[:12]
	checked := &checked{r: blob, verifier: layer.Digest.Verifier(), total: layer.Size, tell: func(n int64) {
		progress(Progress{ID: id, Status: "Downloading", Current: n, Total: layer.Size})
	}}
	v, err := t.volumes.Import(ctx, req, checked)
	if err != nil {
		return v, err
	}
	progress(Progress{ID: id, Status: "Pull complete"})
	progress(Progress{Status: "Digest: " + d.Digest.String()})
	return v, nil
}

// layerOf finds a volume's layer in a manifest, which anybody may have made.
func layerOf(ref string, d ocispec.Descriptor, data []byte) (ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "the manifest of %s cannot be read: %w", ref, err)
	}
	if d.MediaType != ocispec.MediaTypeImageManifest || m.ArtifactType != ArtifactType {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "%s is no volume: volume pull takes what volume push has sent; an image is pulled by tare pull", ref)
	}
	if len(m.Layers) != 1 {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "%s is a volume of %d layers: one is known", ref, len(m.Layers))
	}
	layer := m.Layers[0]
	layer.URLs = nil // a volume's content is where its manifest is
	if err := layer.Digest.Validate(); err != nil || layer.Size <= 0 {
		return layer, fault.New(fault.Invalid, "the layer of %s has no digest or size", ref)
	}
	return layer, nil
}

// checked reads what has a digest: its end is an error when that is another.
type checked struct {
	r        io.Reader
	verifier digest.Verifier
	n, total int64
	told     time.Time
	tell     func(n int64)
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.verifier.Write(p[:n]) // a hash takes everything
	c.n += int64(n)
	if now := time.Now(); n > 0 && now.Sub(c.told) > 100*time.Millisecond {
		c.told = now
		c.tell(c.n)
	}
	if err == io.EOF && (c.n != c.total || !c.verifier.Verified()) {
		err = fault.New(fault.Invalid, "the registry sent another content than the manifest names")
	}
	return n, err
}
