package catalog

import (
	"context"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/image/platform"
)

// Image is one image as a container needs it: resolved to one platform.
type Image struct {
	// ID is the digest of the manifest or index that the name points to.
	ID digest.Digest
	// Name is the canonical name that it was found by, such as
	// docker.io/library/busybox:latest; "" when it was found by its ID.
	Name string
	// Manifest describes the chosen platform's manifest; its digest equals
	// ID unless ID is an index.
	Manifest ocispec.Descriptor
	Config   dockerspec.DockerOCIImage
	// ChainID names the topmost unpacked layer; "" for an image of no layers.
	ChainID  digest.Digest
	DiffIDs  []digest.Digest
	Layers   []ocispec.Descriptor // their blobs
	Platform ocispec.Platform
}

// Foreign tells, when the image is of a platform that this machine is not known
// to run, how the two are written.
func (i Image) Foreign() (image, machine string, foreign bool) {
	return platform.Format(i.Platform), platform.Format(platform.Host()), platform.Foreign(i.Platform)
}

// Unpacked makes sure that the image's layers are unpacked and returns the
// topmost one's chain ID. They are since import or load, unless the image is
// of another platform than this machine's.
func (s *Catalog) Unpacked(ctx context.Context, img Image) (digest.Digest, error) {
	if img.ChainID != "" && !s.layers.Has(img.ChainID) {
		defer s.content.Hold()()
		if err := s.unpacker.Unpack(ctx, img.Layers, img.DiffIDs); err != nil {
			return "", err
		}
	}
	// Somebody else may have unpacked them just now: what is not synced the next
	// daemon throws away, below a container that runs.
	return img.ChainID, s.layers.SyncChain(img.ChainID)
}

// UnpackManifest is Unpacked for a manifest that was chosen earlier. Its image
// may have lost its names by now, or be an index that has it among others.
func (s *Catalog) UnpackManifest(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error) {
	defer s.content.Hold()()
	d, err := s.Detail(manifest)
	if err != nil {
		return "", err
	}
	if err := s.unpacker.Unpack(ctx, d.Manifest.Layers, d.Config.RootFS.DiffIDs); err != nil {
		return "", err
	}
	return d.Chain(), s.layers.SyncChain(d.Chain())
}
