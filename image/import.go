package image

import (
	"context"
	"io"
	"path"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/config"
	"github.com/tarehq/tare/image/platform"
)

// Import makes an image of one layer from the tar r, which may be compressed
// with gzip, zstd, bzip2 or xz, and returns its ID. The layer is stored as it is
// without compression, and unpacked in the same pass. When Import returns, the
// image survives power loss; when it fails nothing is left.
func (s *Service) Import(ctx context.Context, r io.Reader, o ImportOptions) (id string, err error) {
	name, err := importName(o.Reference)
	if err != nil {
		return "", err
	}
	said, err := importConfig(o)
	if err != nil {
		return "", err
	}
	done := s.content.Attempt()
	defer func() { done(err) }()
	layer, err := s.importLayer(ctx, r)
	if err != nil {
		return "", err
	}
	if o.Platform == "" {
		if err := s.findPlatform(&said, layer.Digest); err != nil {
			return "", err
		}
	}
	said.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}
	target, err := config.Put(s.content, said, []ocispec.Descriptor{layer})
	if err != nil {
		return "", err
	}
	if err := s.store([]content.Entry{{Name: name, Target: target, Updated: time.Now()}}); err != nil {
		return "", err
	}
	if name != "" {
		s.publish("tag", target, name)
	}
	s.publish("import", target, "")
	return target.Digest.String(), nil
}

func importName(ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	r, err := newName(ref)
	if err != nil {
		return "", err
	}
	if r.Digest != "" {
		return "", fault.New(fault.Invalid, "cannot import digest reference")
	}
	return r.String(), nil
}

func importConfig(o ImportOptions) (dockerspec.DockerOCIImage, error) {
	machine := platform.Host()
	if o.Platform != "" {
		var err error
		if machine, err = platform.Parse(o.Platform); err != nil {
			return dockerspec.DockerOCIImage{}, err
		}
	}
	now := time.Now().UTC()
	if !o.Epoch.IsZero() {
		now = o.Epoch.UTC()
	}
	image := dockerspec.DockerOCIImage{Image: ocispec.Image{
		Created: &now, Platform: machine, History: []ocispec.History{{Created: &now, Comment: o.Message}},
	}}
	err := config.Change(&image.Config, o.Changes)
	return image, err
}

// findPlatform sets what the programs of the layer are for, if they tell.
func (s *Service) findPlatform(config *dockerspec.DockerOCIImage, chain digest.Digest) error {
	view, err := s.layers.LayerView(chain)
	if err != nil {
		return err
	}
	defer view.Close()
	var programs []string
	for _, argv := range [][]string{config.Config.Entrypoint, config.Config.Cmd} {
		if len(argv) > 0 && path.IsAbs(argv[0]) {
			programs = append(programs, argv[0])
		}
	}
	if p, ok := platform.Of(view.Root(), programs); ok {
		config.Platform = p
	}
	return nil
}

// importLayer stores the stream as a layer.
func (s *Service) importLayer(ctx context.Context, r io.Reader) (ocispec.Descriptor, error) {
	plain, _, err := compression.Decompress(r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer plain.Close()
	return s.storeLayer(ctx, "", plain, 0)
}

// storeLayer stores an uncompressed tar as a blob and unpacks it on the chain
// below, reading it once. One of no more than empty bytes is not kept, and the
// descriptor is the zero one.
func (s *Service) storeLayer(ctx context.Context, below digest.Digest, r io.Reader, empty int64) (ocispec.Descriptor, error) {
	blob, err := s.content.Create(digest.SHA256)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer blob.Close()
	tree, err := s.layers.Begin(below)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer tree.Close()
	if err := tree.Apply(ctx, io.TeeReader(r, blob)); err != nil || blob.Size() <= empty {
		return ocispec.Descriptor{}, err
	}
	d, err := blob.Commit("", -1)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := tree.Commit(below, d); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: blob.Size()}, nil
}
