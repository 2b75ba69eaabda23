package manifest

import (
	"context"
	"encoding/json"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Inspect shows a manifest or a list: a local one, if there is one of that name,
// or the registry's. With list set, the name is one of the images of that local
// list. verbose adds the name, the platform and, for lists, every image.
func (l *Lists) Inspect(ctx context.Context, out io.Writer, list, name string, verbose bool) error {
	ref, err := reference.Parse(name)
	if err != nil {
		return err
	}
	if list != "" {
		return l.inspectImage(out, list, ref, name, verbose)
	}
	images, err := l.images(ref)
	switch {
	case err != nil:
		return err
	case len(images) > 0 && verbose:
		return show(out, images, "\t")
	case len(images) > 0:
		_, text, err := build(images)
		if err != nil {
			return err
		}
		return show(out, text, "   ")
	}
	return l.inspectRemote(ctx, out, ref, verbose)
}

// inspectImage shows an image of a local list.
func (l *Lists) inspectImage(out io.Writer, list string, ref reference.Ref, name string, verbose bool) error {
	in, err := reference.Parse(list)
	if err != nil {
		return err
	}
	image, err := l.image(in, ref)
	if err != nil {
		return err
	}
	if image == nil {
		return fault.New(fault.NotFound, "no such manifest: %s in %s", name, list)
	}
	return showImage(out, image, verbose)
}

func showImage(out io.Writer, image *Image, verbose bool) error {
	if verbose {
		return show(out, image, "\t")
	}
	text, err := image.bytes()
	if err != nil {
		return err
	}
	return show(out, text, "\t")
}

func (l *Lists) inspectRemote(ctx context.Context, out io.Writer, ref reference.Ref, verbose bool) error {
	d, text, err := l.read(ctx, ref, version(ref))
	switch {
	case err != nil:
		return err
	case !content.IsIndex(d.MediaType) && !verbose:
		return show(out, text, "\t")
	case !content.IsIndex(d.MediaType):
		image, err := l.fetch(ctx, ref, d.Digest.String(), ref.String())
		if err != nil {
			return err
		}
		return showImage(out, image, true)
	case !verbose:
		return show(out, text, "   ")
	}
	images, err := l.fetchAll(ctx, ref, text)
	if err != nil {
		return err
	}
	return show(out, images, "\t")
}

// maxImages bounds how many images of a registry's index are fetched.
const maxImages = 1000

// fetchAll reads the images of an index; what the index says of their platforms
// counts. What is no image, such as a statement about one, is left out.
func (l *Lists) fetchAll(ctx context.Context, ref reference.Ref, text []byte) ([]*Image, error) {
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fault.New(fault.Invalid, "the index of %s cannot be read: %w", ref, err)
	}
	if len(index.Manifests) > maxImages {
		return nil, fault.New(fault.Invalid, "the index of %s has %d manifests; at most %d are shown", ref, len(index.Manifests), maxImages)
	}
	images := []*Image{}
	for _, d := range index.Manifests {
		if content.IsIndex(d.MediaType) || d.Platform != nil && d.Platform.OS == "unknown" {
			continue
		}
		named := ref
		named.Digest = d.Digest.String()
		image, err := l.fetch(ctx, ref, d.Digest.String(), named.String())
		if err != nil {
			return nil, err
		}
		if d.Platform != nil {
			image.Descriptor.Platform = d.Platform
		}
		images = append(images, image)
	}
	return images, nil
}
