package cacheio

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// writer gathers the layers of records.
type writer struct {
	config configJSON
	blobs  []ocispec.Descriptor
	has    map[digest.Digest]bool
	at     map[string]int // index of a layer, by what it stands on and is
}

// Write makes the config of records, and lists the blobs that it names.
func Write(records []Record) (config []byte, blobs []ocispec.Descriptor, err error) {
	w := writer{has: map[digest.Digest]bool{}, at: map[string]int{}}
	for _, r := range records {
		out := recordJSON{Digest: r.Key, Exact: r.Exact}
		if !r.Blobs {
			out.DiffIDs = diffIDs(r.Layers)
		} else if i := w.chain(r.Layers); i >= 0 {
			out.Results = []resultJSON{{Layer: i, CreatedAt: r.Layers[len(r.Layers)-1].Created}}
		}
		for _, links := range r.Links {
			var list []linkJSON
			for _, l := range links {
				list = append(list, linkJSON{Selector: l.Selector, Link: l.Record})
			}
			out.Inputs = append(out.Inputs, list)
		}
		w.config.Records = append(w.config.Records, out)
	}
	config, err = json.Marshal(w.config)
	return config, w.blobs, err
}

func diffIDs(layers []Layer) (list []digest.Digest) {
	for _, l := range layers {
		list = append(list, l.DiffID)
	}
	return list
}

// chain adds layers, and returns the index of the topmost.
func (w *writer) chain(layers []Layer) int {
	index, path := -1, ""
	for _, l := range layers {
		path += l.Blob.Digest.String() + " "
		i, ok := w.at[path]
		if !ok {
			i = len(w.config.Layers)
			w.at[path] = i
			w.config.Layers = append(w.config.Layers, layerJSON{Blob: l.Blob.Digest, Parent: index,
				Annotations: &noteJSON{MediaType: l.Blob.MediaType, DiffID: l.DiffID, Size: l.Blob.Size, CreatedAt: l.Created}})
			w.blob(l)
		}
		index = i
	}
	return index
}

func (w *writer) blob(l Layer) {
	if w.has[l.Blob.Digest] {
		return
	}
	w.has[l.Blob.Digest] = true
	d := ocispec.Descriptor{MediaType: l.Blob.MediaType, Digest: l.Blob.Digest, Size: l.Blob.Size, Annotations: map[string]string{annotationDiffID: l.DiffID.String()}}
	if !l.Created.IsZero() {
		d.Annotations[annotationCreated] = l.Created.UTC().Format(time.RFC3339Nano)
	}
	w.blobs = append(w.blobs, d)
}

// Inline makes the field moby.buildkit.cache.v0 of an image with the layers: the
// records whose layers are the image's own by their numbers, and what is known
// of the others.
func Inline(records []Record, image []digest.Digest) ([]byte, error) {
	list := []recordJSON{}
	for _, r := range records {
		ids, out := diffIDs(r.Layers), recordJSON{Digest: r.Key, Exact: r.Exact}
		if len(ids) == 0 {
			continue
		}
		numbers, created := numbersOf(ids, image), r.Layers[len(ids)-1].Created
		switch {
		case numbers == nil:
			out.DiffIDs = ids
		case slices.Equal(ids, image[:len(ids)]):
			out.Results = []resultJSON{{Layer: len(ids) - 1, CreatedAt: created}}
		default:
			out.Chains = []chainJSON{{Layers: numbers, CreatedAt: created}}
		}
		list = append(list, out)
	}
	return json.Marshal(list)
}

// numbersOf finds layers in an image, nil if it has not all.
func numbersOf(ids, image []digest.Digest) (numbers []int) {
	for _, id := range ids {
		n := slices.Index(image, id)
		if n < 0 {
			return nil
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// Form is how the artifact is written.
type Form struct {
	ImageManifest bool // or else an index
	OCI           bool // types, or else Docker's, which only an index can have
}

// Manifest makes the manifest or index of a cache.
func (f Form) Manifest(config ocispec.Descriptor, blobs []ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	if f.ImageManifest && !f.OCI {
		return ocispec.Descriptor{}, nil, invalid("image-manifest=true needs oci-mediatypes=true")
	}
	blobs = slices.Clone(blobs)
	for i := range blobs {
		blobs[i].Annotations = maps.Clone(blobs[i].Annotations)
		if !f.OCI {
			blobs[i].MediaType = dockerType(blobs[i].MediaType)
		}
	}
	version := specs.Versioned{SchemaVersion: 2}
	var doc any
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex}
	switch {
	case f.ImageManifest:
		d.MediaType = ocispec.MediaTypeImageManifest
		doc = ocispec.Manifest{Versioned: version, MediaType: d.MediaType, Config: config, Layers: blobs}
	default:
		if !f.OCI {
			d.MediaType = "application/vnd.docker.distribution.manifest.list.v2+json"
		}
		doc = ocispec.Index{Versioned: version, MediaType: d.MediaType, Manifests: append(blobs, config)}
	}
	text, err := json.Marshal(doc)
	d.Digest, d.Size = digest.FromBytes(text), int64(len(text))
	return d, text, err
}

// dockerType is Docker's name of a layer's type.
func dockerType(mediaType string) string {
	_, how, compressed := strings.Cut(mediaType, "+")
	if !strings.HasPrefix(mediaType, ocispec.MediaTypeImageLayer) {
		return mediaType
	}
	if !compressed {
		return "application/vnd.docker.image.rootfs.diff.tar"
	}
	return "application/vnd.docker.image.rootfs.diff.tar." + how
}
