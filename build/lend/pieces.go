package lend

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/snapshot"
)

// servePieces registers the calls about images, and the pieces of which builds
// make some.
func (l *Lender) servePieces() {
	serve(l, "resolve", l.resolve)
	serve(l, "fetch", l.fetch)
	serve(l, "document", func(ctx context.Context, r build.ImageRequest, _ func(build.Transfer)) (document, error) {
		d, data, err := l.Transfers.Document(ctx, r.Ref, credentials(r.Auth))
		return document{d, data}, err
	})
	serve(l, "fetch-blob", func(ctx context.Context, a contentArg, progress func(build.Transfer)) (none, error) {
		return none{}, l.Transfers.Blob(ctx, a.Request.Ref, a.Content, credentials(a.Request.Auth), transfers(progress))
	})
	serve(l, "unpack", func(ctx context.Context, layers []build.Layer, _ func(build.Transfer)) (none, error) {
		var blobs []ocispec.Descriptor
		var diffIDs []digest.Digest
		for _, layer := range layers {
			blobs, diffIDs = append(blobs, layer.Blob), append(diffIDs, layer.DiffID)
		}
		return none{}, l.making.Unpack(ctx, blobs, diffIDs)
	})
	serve(l, "compress", func(ctx context.Context, a compressArg, _ func(build.Transfer)) (ocispec.Descriptor, error) {
		if a.Kind == "uncompressed" {
			a.Kind = "none"
		}
		how, err := image.ParseRecompressing(a.Kind, a.Level)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		return l.making.Compress(ctx, a.Layer.Blob, a.Layer.DiffID, *how)
	})
	serve(l, "holds", func(ctx context.Context, layer build.Layer, _ func(build.Transfer)) (bool, error) {
		return l.making.Holds(ctx, layer.Blob, layer.DiffID)
	})
	serve(l, "push-content", func(ctx context.Context, a contentArg, progress func(build.Transfer)) (none, error) {
		return none{}, l.Transfers.PushContent(ctx, a.Request.Ref, a.Content, credentials(a.Request.Auth), transfers(progress))
	})
	serve(l, "difference", func(ctx context.Context, a differenceArg, _ func(build.Transfer)) (build.Layer, error) {
		made, err := l.making.Difference(ctx, a.Lower, a.Upper)
		return build.Layer{Chain: made.Chain, DiffID: made.Blob.Digest, Blob: made.Blob}, err
	})
}

// resolve finds an image here, or asks its registry what it is.
func (l *Lender) resolve(ctx context.Context, r build.ImageRequest, progress func(build.Transfer)) (build.Image, error) {
	platform := platformText(r.Platform)
	found := build.Image{Ref: r.Ref}
	img, err := l.Images.Catalog.ResolvePlatform(ctx, r.Ref, platform)
	if errors.Is(err, fault.NotFound) && !r.Pull {
		img, err = l.only(ctx, r.Ref, err)
	}
	found.Target, found.Manifest = img.ID, img.Manifest
	if missing := errors.Is(err, fault.NotFound); !r.Local && (r.Pull || missing) {
		found.Target, found.Manifest, err = l.describe(ctx, r, progress)
	}
	if err != nil {
		return build.Image{}, err
	}
	if found.Config, err = l.making.Config(found.Manifest); err != nil {
		return build.Image{}, err
	}
	found.Layers, err = l.layers(found.Manifest)
	return found, err
}

// only finds an image of one platform, which stands for all: BuildKit takes what has
// the name here before it asks a registry, and its front end warns of another platform.
func (l *Lender) only(ctx context.Context, ref string, missing error) (catalog.Image, error) {
	img, err := l.Images.Catalog.Resolve(ctx, ref)
	if err != nil || img.ID != img.Manifest.Digest {
		return catalog.Image{}, missing
	}
	return img, nil
}

func (l *Lender) describe(ctx context.Context, r build.ImageRequest, progress func(build.Transfer)) (target digest.Digest, manifest ocispec.Descriptor, err error) {
	d, manifest, err := l.Transfers.Describe(ctx, r.Ref, image.PullOptions{Platform: platformText(r.Platform), Credentials: credentials(r.Auth)}, transfers(progress))
	return d.Digest, manifest, err
}

// layers are those of a manifest, whether they are here or not.
func (l *Lender) layers(manifest ocispec.Descriptor) ([]build.Layer, error) {
	blobs, diffIDs, err := l.making.LayersOf(manifest)
	if err != nil {
		return nil, err
	}
	layers := []build.Layer{}
	chain := digest.Digest("")
	for n, d := range diffIDs {
		chain = snapshot.ChainID(chain, d)
		layers = append(layers, build.Layer{Chain: chain, DiffID: d, Blob: blobs[n]})
	}
	return layers, nil
}

func (l *Lender) fetch(ctx context.Context, a fetchArg, progress func(build.Transfer)) (none, error) {
	if !l.making.Whole(a.Manifest) {
		o := image.PullOptions{Platform: platformText(a.Request.Platform), Credentials: credentials(a.Request.Auth), Target: a.Target}
		if err := l.Transfers.Pull(ctx, a.Request.Ref, o, transfers(progress)); err != nil {
			return none{}, err
		}
	}
	_, err := l.Images.Catalog.UnpackManifest(ctx, a.Manifest)
	return none{}, err
}

func (l *Lender) layerBlob(ctx context.Context, a blobArg, _ func(build.Transfer)) (ocispec.Descriptor, error) {
	if l.making.Stored(a.Layer.Blob) {
		return a.Layer.Blob, nil
	}
	return l.making.Blob(ctx, a.Below, a.Layer.DiffID, a.Epoch)
}

func (l *Lender) layerBlobs(ctx context.Context, a blobsArg, _ func(build.Transfer)) ([]ocispec.Descriptor, error) {
	list := make([]ocispec.Descriptor, len(a.Layers))
	for i, p := range a.Layers {
		var err error
		if list[i], err = l.layerBlob(ctx, blobArg{p.Below, p.Layer, a.Epoch}, nil); err != nil {
			return nil, err
		}
	}
	return list, nil
}
