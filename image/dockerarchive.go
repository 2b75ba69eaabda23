package image

import (
	"context"
	"encoding/json"
	"io"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
)

// archived is one image of a docker-archive's manifest.json, which names its
// files by their paths in the archive.
type archived struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerArchive makes a manifest for each image of an archive that has none,
// always the same for the same files.
func (l *loader) dockerArchive(ctx context.Context) ([]content.Entry, error) {
	var list []archived
	if err := json.Unmarshal(l.small["manifest.json"], &list); err != nil {
		return nil, fault.New(fault.Invalid, "invalid archive: its manifest.json is not a list of images: %v", err)
	}
	now := time.Now()
	var entries []content.Entry
	for _, a := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(a.Layers) > catalog.MaxLayers {
			return nil, fault.New(fault.Invalid, "invalid archive: an image has %d layers, more than %d", len(a.Layers), catalog.MaxLayers)
		}
		if len(entries)+len(a.RepoTags) > maxArchived {
			return nil, fault.New(fault.Invalid, "invalid archive: it has more than %d images", maxArchived)
		}
		target, err := l.manifest(a)
		if err != nil {
			return nil, err
		}
		if len(a.RepoTags) == 0 {
			entries = append(entries, content.Entry{Target: target, Updated: now})
		}
		for _, tag := range a.RepoTags {
			r, err := newName(tag)
			if err != nil {
				return nil, fault.New(fault.Invalid, "invalid archive: the name %q in manifest.json: %w", tag, err)
			}
			if r.Digest != "" {
				return nil, fault.New(fault.Invalid, "invalid archive: the name %q in manifest.json has a digest", tag)
			}
			entries = append(entries, content.Entry{Name: r.String(), Target: target, Updated: now})
		}
	}
	return entries, nil
}

func (l *loader) manifest(a archived) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: content.DockerManifest, Layers: []ocispec.Descriptor{}}
	var err error
	if m.Config, err = l.blob(a.Config); err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Config.MediaType = content.DockerConfig
	for _, name := range a.Layers {
		d, err := l.blob(name)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if d.MediaType, err = l.layerType(d.Digest); err != nil {
			return ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	return l.s.content.PutJSON(m.MediaType, m)
}

// blob finds a file of the archive among the blobs, through links.
func (l *loader) blob(name string) (ocispec.Descriptor, error) {
	at := path.Clean(name)
	for range 16 {
		d, ok := l.files[at]
		if !ok {
			d = blobName(at)
		}
		if d != "" {
			if size, ok := l.s.content.Size(d); ok {
				return ocispec.Descriptor{Digest: d, Size: size}, nil
			}
		}
		if at, ok = l.links[at]; !ok {
			break
		}
	}
	return ocispec.Descriptor{}, fault.New(fault.Invalid, "invalid archive: manifest.json names the file %q, which is not in it", name)
}

func (l *loader) layerType(d digest.Digest) (string, error) {
	f, _, err := l.s.content.Open(d)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 4)
	n, err := io.ReadFull(f, head)
	if err != nil && n == 0 {
		return "", fault.New(fault.Invalid, "invalid archive: layer %s is empty", d)
	}
	switch string(head) {
	case "\x28\xb5\x2f\xfd":
		return content.DockerLayer + ".zstd", nil
	}
	if head[0] == 0x1f && head[1] == 0x8b {
		return content.DockerLayerGzip, nil
	}
	return content.DockerLayer, nil
}
