// Package manifest reads manifests and indexes that strangers push, so that no
// two readers can understand one differently: what one program takes for an
// image and another for an index, or finds under a name that it takes for the
// one it knows, is refused.
package manifest

import (
	"mime"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry/storage"
)

// MaxSize is how many bytes a manifest may have. The specification asks for at
// least four megabytes.
const MaxSize = 4 << 20

// Media types that a registry takes.
const (
	DockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// maxReferrer is how many bytes the artifact type and the annotations of a
// manifest that has a subject may have: each list of referrers repeats them.
const maxReferrer = 64 << 10

func referrerSize(d *ocispec.Descriptor) int {
	size := len(d.ArtifactType)
	for k, v := range d.Annotations {
		size += len(k) + len(v)
	}
	return size
}

// layersElsewhere are those that their makers forbid to distribute: a client
// fetches them from the addresses that the manifest has.
var layersElsewhere = []string{
	"application/vnd.docker.image.rootfs.foreign.diff.tar",
	"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	"application/vnd.oci.image.layer.nondistributable.v1.tar",
	"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
	"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
}

// IsList tells whether the media type is an index or Docker's list.
func IsList(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerList
}

// IsImage tells whether the media type is a manifest with config and layers.
func IsImage(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == DockerImage
}

// Read reads a document that came with a Content-Type, which may be "" where
// the document itself says what it is. Its digest is made by the algorithm. An
// error is fault.Invalid.
func Read(contentType string, algorithm digest.Algorithm, data []byte) (storage.Manifest, error) {
	none := storage.Manifest{}
	d, err := decode(data)
	if err != nil {
		return none, err
	}
	mediaType, err := d.settle(contentType)
	if err != nil {
		return none, err
	}
	m := storage.Manifest{Data: data, Subject: d.subject.Digest}
	m.Descriptor = ocispec.Descriptor{MediaType: mediaType, Digest: algorithm.FromBytes(data), Size: int64(len(data))}
	if m.Subject != "" {
		m.Descriptor.ArtifactType, m.Descriptor.Annotations = d.artifactType, d.annotations
		if d.artifactType == "" {
			m.Descriptor.ArtifactType = d.config.MediaType // an index has none, and stays without
		}
		if size := referrerSize(&m.Descriptor); size > maxReferrer {
			return none, fault.New(fault.Invalid, "artifactType and annotations of a manifest with a subject have %d bytes, and at most %d are taken: keep what is large in blobs", size, maxReferrer)
		}
	}
	if IsList(mediaType) {
		m.Manifests = d.manifests
		return m, nil
	}
	m.Blobs = append(m.Blobs, d.config)
	for _, layer := range d.layers {
		if !slices.Contains(layersElsewhere, layer.MediaType) {
			m.Blobs = append(m.Blobs, layer)
		}
	}
	return m, nil
}

// settle finds what the document is: what it came as, what it says of itself
// and what it looks like have to be the same.
func (d *document) settle(contentType string) (string, error) {
	mediaType := d.mediaType
	if contentType != "" {
		var err error
		if mediaType, _, err = mime.ParseMediaType(contentType); err != nil {
			return "", fault.New(fault.Invalid, "the Content-Type %q is no media type: send that of the manifest", contentType)
		}
	}
	switch {
	case mediaType == "":
		return "", fault.New(fault.Invalid, "neither Content-Type nor mediaType says what the manifest is: send its media type as Content-Type")
	case !IsImage(mediaType) && !IsList(mediaType):
		return "", fault.New(fault.Invalid, "manifests of type %q are not supported: push an OCI or Docker v2.2 manifest, or an index of them, with its media type as Content-Type", mediaType)
	case d.mediaType == "" && (mediaType == DockerImage || mediaType == DockerList):
		return "", fault.New(fault.Invalid, "a Docker manifest needs a mediaType in the document: %s", mediaType)
	case d.mediaType != "" && d.mediaType != mediaType:
		return "", fault.New(fault.Invalid, "the manifest came as %s and calls itself %s: send its mediaType as Content-Type", mediaType, d.mediaType)
	case !d.has["schemaVersion"]:
		return "", fault.New(fault.Invalid, "the manifest lacks schemaVersion 2")
	}
	needs, bans := []string{"config", "layers"}, []string{"manifests", "fsLayers"}
	if IsList(mediaType) {
		needs, bans = []string{"manifests"}, []string{"config", "layers", "fsLayers"}
	}
	for _, name := range needs {
		if !d.has[name] {
			return "", fault.New(fault.Invalid, "a manifest of type %s needs %q", mediaType, name)
		}
	}
	for _, name := range bans {
		if d.has[name] {
			return "", fault.New(fault.Invalid, "a manifest of type %s must not have %q: others would read it as something else", mediaType, name)
		}
	}
	return mediaType, nil
}
