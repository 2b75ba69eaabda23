package manifest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// Push sends a local list to its registry, with those images that are in another
// repository there. purge forgets the local list then.
func (l *Lists) Push(ctx context.Context, out io.Writer, name string, purge bool) error {
	list, err := reference.Parse(name)
	if err != nil {
		return err
	}
	images, err := l.images(list)
	if err != nil {
		return err
	}
	if len(images) == 0 {
		return missing(list)
	}
	refs, err := sources(list, images)
	if err != nil {
		return err
	}
	d, text, err := build(images)
	if err != nil {
		return err
	}
	to := l.repository(list)
	for i, image := range images {
		if refs[i].Path == list.Path {
			continue // the registry has it there
		}
		if err := l.copy(ctx, to, refs[i], image); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "Pushed ref %s@%s with digest: %[2]s\n", list.Repository(), image.Descriptor.Digest); err != nil {
			return err
		}
	}
	if err := to.PushManifest(ctx, d, text, version(list)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, d.Digest); err != nil {
		return err
	}
	if purge {
		return l.remove(name)
	}
	return nil
}

// sources reads the names of the images. All must be at the list's registry,
// and have a platform that a client can choose them by.
func sources(list reference.Ref, images []*Image) ([]reference.Ref, error) {
	refs := make([]reference.Ref, len(images))
	for i, image := range images {
		var err error
		if refs[i], err = reference.Parse(image.Ref); err != nil {
			return nil, err
		}
		if refs[i].Domain != list.Domain {
			return nil, fault.New(fault.Invalid, "cannot use source images from a different registry than the target image: %s != %s", refs[i].Domain, list.Domain)
		}
		if p := image.Descriptor.Platform; p == nil || p.OS == "" || p.Architecture == "" {
			return nil, fault.New(fault.Invalid, "manifest %s must have an OS and Architecture to be pushed to a registry: "+
				"give them by: tare manifest annotate --os OS --arch ARCH %s %s", image.Ref, list.Familiar(), refs[i].Familiar())
		}
	}
	return refs, nil
}

// copy takes an image over from another repository of the same registry: its
// blobs by mounting, or else through this machine, then its manifest.
func (l *Lists) copy(ctx context.Context, to *remote.Repository, from reference.Ref, image *Image) error {
	text, err := image.bytes()
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return fault.New(fault.Invalid, "the manifest of %s cannot be read: %w", image.Ref, err)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable.") {
			continue
		}
		mounted, err := to.Mount(ctx, d.Digest, from.Path)
		if err != nil {
			return err
		}
		if mounted {
			continue
		}
		source := l.repository(from)
		if err := to.PushBlob(ctx, d, func(offset int64) (io.ReadCloser, error) { return source.Blob(ctx, d, offset, -1) }, nil); err != nil {
			return err
		}
	}
	d := image.Descriptor
	return to.PushManifest(ctx, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(text))}, text, d.Digest.String())
}
