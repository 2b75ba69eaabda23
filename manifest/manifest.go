// Package manifest makes manifest lists by hand: names under which a registry
// has one image for each kind of machine. A list is put together in a directory
// of the user's, which Docker's client reads and writes too, and then pushed.
//
//	<dir>/manifests/<list>/<image>   one JSON file for each image of the list
//
// The names of files are canonical names whose colons are dashes and whose
// slashes are underscores.
package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// Image is one image of a list, as it is stored and as inspect -v shows it.
type Image struct {
	Ref              string // canonical name
	Descriptor       ocispec.Descriptor
	Raw              []byte          `json:",omitempty"` // the manifest's own bytes
	SchemaV2Manifest json.RawMessage `json:",omitempty"` // Raw of Docker's type
	OCIManifest      json.RawMessage `json:",omitempty"` // Raw of OCI's
}

// bytes are the manifest's own bytes, which files of older clients have as JSON
// alone. Their digest is checked.
func (i *Image) bytes() ([]byte, error) {
	for _, text := range [][]byte{i.Raw, i.SchemaV2Manifest, i.OCIManifest} {
		if len(text) > 0 && i.Descriptor.Digest.Validate() == nil && i.Descriptor.Digest.Algorithm().FromBytes(text) == i.Descriptor.Digest {
			return text, nil
		}
	}
	return nil, fault.New(fault.Invalid, "the stored manifest of %s does not have the digest %s: create the list anew", i.Ref, i.Descriptor.Digest)
}

// Lists makes, shows and pushes manifest lists.
type Lists struct {
	dir         string
	client      *remote.Client
	credentials func(domain string) remote.Credentials
}

// New keeps lists below the directory of the user's configuration, and talks to
// registries as client does, with the credentials that the user has for the
// domain of a canonical name.
func New(dir string, client *remote.Client, credentials func(domain string) remote.Credentials) *Lists {
	return &Lists{dir: dir, client: client, credentials: credentials}
}

func (l *Lists) repository(ref reference.Ref) *remote.Repository {
	return l.client.Repository(ref, l.credentials(ref.Domain))
}

// version is what names the manifest in its repository.
func version(ref reference.Ref) string {
	if ref.Digest != "" {
		return ref.Digest
	}
	return ref.Tag
}

// read fetches a manifest and checks its digest.
func (l *Lists) read(ctx context.Context, ref reference.Ref, version string) (ocispec.Descriptor, []byte, error) {
	d, text, err := l.repository(ref).Manifest(ctx, version)
	if errors.Is(err, fault.NotFound) {
		return d, nil, fault.New(fault.NotFound, "no such manifest: %s", ref)
	}
	if err != nil {
		return d, nil, err
	}
	if d.Digest.Validate() != nil || d.Digest.Algorithm().FromBytes(text) != d.Digest {
		return d, nil, fault.New(fault.Invalid, "the registry's manifest of %s does not have the digest %s", ref, d.Digest)
	}
	return d, text, nil
}

// maxConfig bounds an image's configuration, in bytes.
const maxConfig = 4 << 20

// fetch reads one image's manifest, and the platform in its configuration. An
// index is refused: a list of lists is no list of images.
func (l *Lists) fetch(ctx context.Context, ref reference.Ref, version, name string) (*Image, error) {
	d, text, err := l.read(ctx, ref, version)
	if err != nil {
		return nil, err
	}
	if content.IsIndex(d.MediaType) {
		return nil, fault.New(fault.Invalid, "%s is a manifest list, not an image: name its images instead", ref)
	}
	image := &Image{Ref: name, Descriptor: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, Raw: text}
	switch d.MediaType {
	case content.DockerManifest:
		image.SchemaV2Manifest = text
	case ocispec.MediaTypeImageManifest:
		image.OCIManifest = text
	default:
		return nil, fault.New(fault.Invalid, "%s is of the type %s, which no manifest list takes", ref, d.MediaType)
	}
	image.Descriptor.Platform, err = l.platform(ctx, ref, text)
	return image, err
}

// platform reads the platform of an image from its configuration; nil for what
// has none.
func (l *Lists) platform(ctx context.Context, ref reference.Ref, text []byte) (*ocispec.Platform, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fault.New(fault.Invalid, "the manifest of %s cannot be read: %w", ref, err)
	}
	config, err := l.repository(ref).ReadBlob(ctx, m.Config, maxConfig)
	if err != nil {
		return nil, err
	}
	var p ocispec.Platform
	if json.Unmarshal(config, &p) != nil || p.OS == "" && p.Architecture == "" {
		return nil, nil
	}
	return &p, nil
}

// entry is an image in a list. Its fields are in the order that Docker's client
// writes them in: equal lists have equal digests, whoever makes them.
type entry struct {
	MediaType string        `json:"mediaType,omitempty"`
	Size      int64         `json:"size,omitempty"`
	Digest    digest.Digest `json:"digest,omitempty"`
	Platform  platform      `json:"platform"`
}

type platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// build makes the list of the images: Docker's type when all of them are of
// Docker's, else OCI's.
func build(images []*Image) (ocispec.Descriptor, []byte, error) {
	list := struct {
		SchemaVersion int     `json:"schemaVersion"`
		MediaType     string  `json:"mediaType"`
		Manifests     []entry `json:"manifests"`
	}{SchemaVersion: 2, MediaType: content.DockerManifestList, Manifests: []entry{}}
	for _, i := range images {
		p := i.Descriptor.Platform
		if p == nil {
			p = &ocispec.Platform{}
		}
		if i.Descriptor.MediaType != content.DockerManifest {
			list.MediaType = ocispec.MediaTypeImageIndex
		}
		list.Manifests = append(list.Manifests, entry{i.Descriptor.MediaType, i.Descriptor.Size, i.Descriptor.Digest,
			platform{p.Architecture, p.OS, p.OSVersion, p.OSFeatures, p.Variant}})
	}
	text, err := json.MarshalIndent(list, "", "   ")
	return ocispec.Descriptor{MediaType: list.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}, text, err
}

// show writes JSON with indentation.
func show(out io.Writer, v any, indent string) error {
	var b bytes.Buffer
	raw, ok := v.([]byte)
	if !ok {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
		raw = bytes.Clone(b.Bytes())
		b.Reset()
	}
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", indent); err != nil {
		return fault.New(fault.Invalid, "the manifest is no JSON: %w", err)
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}

// fileName is a canonical name as a file's. No name of an image begins with a
// dot or is empty, so it is never a way out of its directory.
func fileName(ref reference.Ref) string {
	return strings.NewReplacer(":", "-", "/", "_").Replace(ref.String())
}
