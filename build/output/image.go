package output

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// Made is one platform's image as a front end left it.
type Made struct {
	Platform ocispec.Platform
	Result   *build.Result
	Config   []byte // JSON, without layers; nil for none

	ID           string // of the platform, as the front end calls it
	Definition   *pb.Definition
	Attestations []Attestation
}

// exporter writes images into the daemon's store.
type exporter struct {
	store  build.Store
	epoch  time.Time // SOURCE_DATE_EPOCH; zero for none
	want   Wanted
	inline Inline

	config ocispec.Descriptor // of the last manifest
	layers []digest.Digest    // as well
	texts  [][]byte           // manifests and the like that are yet to be stored
}

// Inline is what an image with the layers carries of the build's cache, nil for
// nothing.
type Inline func(ctx context.Context, layers []build.Layer) ([]byte, error)

// target stores the results, and an index over them if there are several, or
// something is said of them.
func (x *exporter) target(ctx context.Context, results []Made) (target ocispec.Descriptor, err error) {
	var manifests, said []ocispec.Descriptor
	for _, m := range results {
		if target, err = x.manifest(ctx, m); err != nil {
			return target, err
		}
		manifests = append(manifests, target)
		if list := chosen(m.Attestations, x.want.inline); len(list) > 0 {
			if x.want.docker {
				return target, fault.New(fault.Invalid, "cannot export attestations with \"oci-mediatypes=false\"")
			}
			d, err := x.attested(ctx, m, target, list)
			if err != nil {
				return target, err
			}
			said = append(said, d)
		}
	}
	if len(manifests) < 2 && len(said) == 0 {
		return target, nil
	}
	x.config = ocispec.Descriptor{}
	kind := ocispec.MediaTypeImageIndex
	if x.want.docker {
		kind = dockerList
	}
	text, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: kind, Manifests: append(manifests, said...),
		Annotations: x.want.annotations.of(exptypes.AnnotationIndex, nil)})
	if err != nil {
		return target, err
	}
	target, err = x.put(ctx, kind, text)
	target.Annotations = x.want.annotations.of(exptypes.AnnotationIndexDescriptor, nil)
	return target, err
}

// Docker's own media types, of before there were OCI's.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// annotations are those that a client asks for.
type annotations []annotation

type annotation struct {
	key   exptypes.AnnotationKey
	value string
}

// of selects those of one kind, of a platform if it is not nil.
func (l annotations) of(kind string, p *ocispec.Platform) map[string]string {
	var found map[string]string
	for _, a := range l {
		if a.key.Type != kind || p != nil && a.key.Platform != nil && directoryOf(*p) != directoryOf(*a.key.Platform) {
			continue
		}
		if found == nil {
			found = map[string]string{}
		}
		found[a.key.Key] = a.value
	}
	return found
}

// manifest stores the config and the manifest of one platform.
func (x *exporter) manifest(ctx context.Context, m Made) (manifest ocispec.Descriptor, err error) {
	layers, err := m.Result.Fetch(ctx, x.epoch)
	if err != nil {
		return manifest, err
	}
	var cache []byte
	if x.inline != nil {
		if cache, err = x.inline(ctx, layers); err != nil {
			return manifest, err
		}
	}
	text, err := x.complete(m, layers, cache)
	if err != nil {
		return manifest, err
	}
	kinds := [2]string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig}
	if x.want.docker {
		kinds = [2]string{dockerManifest, dockerConfig}
	}
	if x.config, err = x.put(ctx, kinds[1], text); err != nil {
		return manifest, err
	}
	out := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: kinds[0], Config: x.config, Layers: []ocispec.Descriptor{},
		Annotations: x.want.annotations.of(exptypes.AnnotationManifest, &m.Platform)}
	x.layers = nil
	for _, l := range layers {
		d, err := x.layer(ctx, l)
		if err != nil {
			return manifest, err
		}
		out.Layers, x.layers = append(out.Layers, d), append(x.layers, d.Digest)
	}
	list, err := json.Marshal(out)
	if err != nil {
		return manifest, err
	}
	manifest, err = x.put(ctx, kinds[0], list)
	manifest.Platform = &m.Platform
	manifest.Annotations = x.want.annotations.of(exptypes.AnnotationManifestDescriptor, &m.Platform)
	return manifest, err
}

// layer is a layer's blob in the compression and by the media type that are
// wanted. What is compressed otherwise already is left alone, unless it must not.
func (x *exporter) layer(ctx context.Context, l build.Layer) (d ocispec.Descriptor, err error) {
	d = l.Blob
	have := compressionOf(d.MediaType)
	if kind := x.want.compression; kind != "" && have != kind && (x.want.force || have == "uncompressed") {
		if d, err = x.store.Compress(ctx, l, kind, x.want.level); err != nil {
			return d, err
		}
		have = kind
	}
	suffix := map[string]string{"gzip": "gzip", "zstd": "zstd"}[have]
	switch {
	case x.want.docker && suffix == "":
		d.MediaType = dockerLayer
	case x.want.docker:
		d.MediaType = dockerLayer + "." + suffix
	case suffix == "":
		d.MediaType = ocispec.MediaTypeImageLayer
	default:
		d.MediaType = ocispec.MediaTypeImageLayer + "+" + suffix
	}
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, nil
}

// compressionOf reads a layer's media type.
func compressionOf(mediaType string) string {
	for _, kind := range []string{"gzip", "zstd"} {
		if strings.HasSuffix(mediaType, "+"+kind) || strings.HasSuffix(mediaType, "."+kind) {
			return kind
		}
	}
	return "uncompressed"
}

// maxText is the size from which on a blob is stored by itself, in bytes: what
// is smaller goes with the image's name, in one message.
const maxText = 64 << 10

// put has a blob stored, at the latest by flush or with the image's name.
func (x *exporter) put(ctx context.Context, mediaType string, text []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if len(text) >= maxText {
		return d, x.store.PutBlob(ctx, d, bytes.NewReader(text))
	}
	x.texts = append(x.texts, text)
	return d, nil
}

// flush stores what goes without a name.
func (x *exporter) flush(ctx context.Context) error {
	for _, text := range x.texts {
		d := ocispec.Descriptor{Digest: digest.FromBytes(text), Size: int64(len(text))}
		if err := x.store.PutBlob(ctx, d, bytes.NewReader(text)); err != nil {
			return err
		}
	}
	x.texts = nil
	return nil
}

// cacheField of a config has what the image carries of the build's cache.
const cacheField = "moby.buildkit.cache.v0"

// complete puts layers, times and a history that agrees with the layers into a
// config, and leaves all else as it came.
func (x *exporter) complete(m Made, layers []build.Layer, cache []byte) ([]byte, error) {
	fields := map[string]json.RawMessage{}
	if len(m.Config) > 0 {
		if err := json.Unmarshal(m.Config, &fields); err != nil {
			return nil, fault.New(fault.Invalid, "the front end made a config that is no JSON: %w", err)
		}
	} else {
		fields["architecture"], fields["os"] = quoted(m.Platform.Architecture), quoted(m.Platform.OS)
		fields["config"] = json.RawMessage(`{}`)
	}
	var history []ocispec.History
	if h := fields["history"]; h != nil {
		if err := json.Unmarshal(h, &history); err != nil {
			return nil, fault.New(fault.Invalid, "the front end made a history that is none: %w", err)
		}
	}
	diffIDs := []digest.Digest{}
	for _, l := range layers {
		diffIDs = append(diffIDs, l.DiffID)
	}
	history = agree(history, layers, x.now())
	delete(fields, cacheField) // the base's own
	set := map[string]any{"rootfs": ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}, "history": history, "created": *history[len(history)-1].Created}
	if cache != nil {
		set[cacheField] = cache
	}
	for name, v := range set {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		fields[name] = text
	}
	return json.Marshal(fields) // names in order: the same config has the same bytes
}

func (x *exporter) now() time.Time {
	if !x.epoch.IsZero() {
		return x.epoch.UTC()
	}
	return time.Now().UTC()
}

func quoted(s string) json.RawMessage {
	text, _ := json.Marshal(s) // a string can always be
	return text
}

// agree gives each layer an entry of the history, and each entry a time: that
// when its layer was made, or else the layer beside it, so that a build which
// finds all in the cache makes the same image again.
func agree(history []ocispec.History, layers []build.Layer, now time.Time) []ocispec.History {
	n := 0
	for i := range history {
		h := &history[i]
		if h.EmptyLayer {
			continue
		}
		if n == len(layers) {
			h.EmptyLayer = true
			continue
		}
		if l := &layers[n]; h.Created == nil && !l.Created.IsZero() {
			h.Created = &l.Created
		}
		n++
	}
	for ; n < len(layers); n++ {
		history = append(history, ocispec.History{CreatedBy: "unknown", Comment: "made by a build"})
	}
	return timed(history, now)
}

// timed fills in the times that are missing. What comes before the first layer
// of this build has that layer's.
func timed(history []ocispec.History, now time.Time) []ocispec.History {
	if len(history) == 0 {
		history = []ocispec.History{{EmptyLayer: true, CreatedBy: "unknown"}}
	}
	last, missing := &now, false
	for _, h := range history {
		if h.Created == nil {
			missing = true
			continue
		}
		if last = h.Created; missing {
			break
		}
	}
	missing = false
	for i := range history {
		switch h := &history[i]; {
		case h.Created == nil:
			missing, h.Created = true, last
		case missing:
			last = h.Created
		}
	}
	return history
}
