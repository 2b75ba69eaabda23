package output

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
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
}

// exporter writes images into the daemon's store.
type exporter struct {
	store       build.Store
	epoch       time.Time // SOURCE_DATE_EPOCH; zero for none
	annotations annotations
}

// target stores the results, and an index over them if there are several.
func (x *exporter) target(ctx context.Context, results []Made) (target ocispec.Descriptor, config ocispec.Descriptor, err error) {
	var manifests []ocispec.Descriptor
	for _, m := range results {
		target, config, err = x.manifest(ctx, m)
		if err != nil {
			return target, config, err
		}
		manifests = append(manifests, target)
	}
	if len(manifests) < 2 {
		return target, config, nil
	}
	text, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
		Annotations: x.annotations.of(exptypes.AnnotationIndex, nil)})
	if err != nil {
		return target, config, err
	}
	target, err = x.put(ctx, ocispec.MediaTypeImageIndex, text)
	target.Annotations = x.annotations.of(exptypes.AnnotationIndexDescriptor, nil)
	return target, ocispec.Descriptor{}, err
}

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
func (x *exporter) manifest(ctx context.Context, m Made) (manifest, config ocispec.Descriptor, err error) {
	layers := m.Result.Layers()
	text, err := x.complete(m, layers)
	if err != nil {
		return manifest, config, err
	}
	if config, err = x.put(ctx, ocispec.MediaTypeImageConfig, text); err != nil {
		return manifest, config, err
	}
	out := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{},
		Annotations: x.annotations.of(exptypes.AnnotationManifest, &m.Platform)}
	below := digest.Digest("")
	for _, l := range layers {
		blob := l.Blob
		if blob.Digest == l.DiffID { // made here: perhaps only its files are left
			if blob, err = x.store.LayerBlob(ctx, below, l, x.epoch); err != nil {
				return manifest, config, err
			}
		}
		out.Layers = append(out.Layers, blob)
		below = l.Chain
	}
	if text, err = json.Marshal(out); err != nil {
		return manifest, config, err
	}
	manifest, err = x.put(ctx, ocispec.MediaTypeImageManifest, text)
	manifest.Platform = &m.Platform
	manifest.Annotations = x.annotations.of(exptypes.AnnotationManifestDescriptor, &m.Platform)
	return manifest, config, err
}

func (x *exporter) put(ctx context.Context, mediaType string, text []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return d, x.store.PutBlob(ctx, d, bytes.NewReader(text))
}

// complete puts layers, times and a history that agrees with the layers into a
// config, and leaves all else as it came.
func (x *exporter) complete(m Made, layers []build.Layer) ([]byte, error) {
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
	created := *history[len(history)-1].Created
	for name, v := range map[string]any{"rootfs": ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}, "history": history, "created": created} {
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
