package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// Unpacked makes sure that the image's layers are unpacked and returns the
// topmost one's chain ID. They are since import or load, unless the image is
// of another platform than this machine's.
func (s *Service) Unpacked(ctx context.Context, img Image) (digest.Digest, error) {
	if img.ChainID != "" && !s.layers.Has(img.ChainID) {
		defer s.content.Hold()()
		if err := s.unpack(ctx, img.layers, img.DiffIDs); err != nil {
			return "", err
		}
	}
	// Somebody else may have unpacked them just now: what is not synced the next
	// daemon throws away, below a container that runs.
	return img.ChainID, s.layers.SyncChain(img.ChainID)
}

// UnpackManifest is Unpacked for a manifest that was chosen earlier. Its image
// may have lost its names by now, or be an index that has it among others.
func (s *Service) UnpackManifest(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error) {
	defer s.content.Hold()()
	d, err := s.detail(manifest)
	if err != nil {
		return "", err
	}
	if err := s.unpack(ctx, d.manifest.Layers, d.config.RootFS.DiffIDs); err != nil {
		return "", err
	}
	return d.chain(), s.layers.SyncChain(d.chain())
}

// unpack makes the layers that are missing. The caller holds the content.
func (s *Service) unpack(ctx context.Context, layers []ocispec.Descriptor, diffIDs []digest.Digest) error {
	var parent digest.Digest
	for i, layer := range layers {
		chain := snapshot.ChainID(parent, diffIDs[i])
		if err := s.unpackLayer(ctx, parent, diffIDs[i], layer); err != nil {
			return fmt.Errorf("cannot unpack layer %s: %w", layer.Digest, err)
		}
		parent = chain
	}
	return nil
}

func (s *Service) unpackLayer(ctx context.Context, parent, diffID digest.Digest, layer ocispec.Descriptor) error {
	chain := snapshot.ChainID(parent, diffID)
	unlock, err := s.unpacks.Lock(ctx, chain)
	if err != nil {
		return err
	}
	defer unlock()
	if s.layers.Has(chain) {
		return nil
	}
	switch layer.MediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		ocispec.MediaTypeImageLayerNonDistributable, ocispec.MediaTypeImageLayerNonDistributableGzip, //nolint:staticcheck // old images have them
		content.DockerLayer, content.DockerLayerGzip, content.DockerLayer + ".zstd":
	default:
		return fault.New(fault.NotImplemented, "layers of the type %q are not supported", layer.MediaType)
	}
	blob, _, err := s.content.Open(layer.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	plain, _, err := archive.Decompress(blob)
	if err != nil {
		return err
	}
	defer plain.Close()
	_, err = s.layers.Unpack(ctx, parent, diffID, plain)
	return err
}
