package cacheio

import (
	"context"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source is where a cache lies. Document returns a blob of at most limit bytes,
// which has the digest.
type Source interface {
	Document(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error)
}

func newCache() *Cache {
	return &Cache{records: map[digest.Digest]recordJSON{}, at: map[digest.Digest][]int{}}
}

// documentJSON is a manifest, an index, or a list of Docker's.
type documentJSON struct {
	MediaType string               `json:"mediaType"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    ocispec.Descriptor   `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
}

// Read reads the cache whose manifest or index is root, or those that the images
// of it have inside. An image without one is an empty cache.
func Read(ctx context.Context, src Source, root ocispec.Descriptor) (*Cache, error) {
	r := reader{src: src, cache: newCache(), seen: map[digest.Digest]bool{}}
	if err := r.document(ctx, root); err != nil {
		return nil, err
	}
	return r.cache, nil
}

type reader struct {
	src   Source
	cache *Cache
	seen  map[digest.Digest]bool
}

func (r *reader) document(ctx context.Context, d ocispec.Descriptor) error {
	if r.seen[d.Digest] {
		return nil
	}
	if r.seen[d.Digest] = true; len(r.seen) > maxNested {
		return invalid("it has more than %d manifests", maxNested)
	}
	var doc documentJSON
	if err := r.read(ctx, d, &doc); err != nil {
		return err
	}
	switch {
	case doc.Config.MediaType == MediaType:
		return r.config(ctx, doc.Config, doc.Layers)
	case doc.Config.Digest != "":
		return r.image(ctx, doc)
	}
	var rest []ocispec.Descriptor
	var config *ocispec.Descriptor
	for i := range doc.Manifests {
		if m := &doc.Manifests[i]; m.MediaType == MediaType {
			config = m
		} else {
			rest = append(rest, *m)
		}
	}
	if config != nil {
		return r.config(ctx, *config, rest)
	}
	for _, m := range rest {
		if m.Annotations["vnd.docker.reference.type"] != "" { // what is told of an image
			continue
		}
		if err := r.document(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) read(ctx context.Context, d ocispec.Descriptor, to any) error {
	if err := d.Digest.Validate(); err != nil {
		return invalid("%q is no digest", d.Digest)
	}
	if d.Size > MaxDocument {
		return invalid("%s has %d bytes, and at most %d are read", d.Digest, d.Size, MaxDocument)
	}
	data, err := r.src.Document(ctx, d, MaxDocument)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return invalid("%s is no JSON of its kind: %w", d.Digest, err)
	}
	return nil
}

// config reads the config of an artifact.
func (r *reader) config(ctx context.Context, d ocispec.Descriptor, blobs []ocispec.Descriptor) error {
	var c configJSON
	if err := r.read(ctx, d, &c); err != nil {
		return err
	}
	byDigest := map[digest.Digest]ocispec.Descriptor{}
	for _, b := range blobs {
		byDigest[b.Digest] = b
	}
	nodes := make([]node, len(c.Layers))
	for i, l := range c.Layers {
		b := byDigest[l.Blob]
		n := node{parent: l.Parent, Layer: Layer{DiffID: digest.Digest(b.Annotations[annotationDiffID])}}
		n.Blob = ocispec.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size}
		n.Created, _ = time.Parse(time.RFC3339, b.Annotations[annotationCreated]) // a time is no promise
		nodes[i] = n
	}
	return r.add(nodes, c.Records)
}

// ReadConfig reads a config that stands alone: it says of its layers itself what they
// are.
func ReadConfig(text []byte) (*Cache, error) {
	if len(text) > MaxDocument {
		return nil, invalid("it has more than %d bytes", MaxDocument)
	}
	var c configJSON
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, invalid("it is no JSON of its kind: %w", err)
	}
	nodes := make([]node, len(c.Layers))
	for i, l := range c.Layers {
		n := node{parent: l.Parent}
		if a := l.Annotations; a != nil { // or else it is of no use
			n.Layer = Layer{DiffID: a.DiffID, Created: a.CreatedAt, Blob: ocispec.Descriptor{MediaType: a.MediaType, Digest: l.Blob, Size: a.Size}}
		}
		nodes[i] = n
	}
	r := reader{cache: newCache()}
	return r.cache, r.add(nodes, c.Records)
}

// imageJSON is as much of an image's config as is read.
type imageJSON struct {
	Rootfs struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
	Cache   []byte `json:"moby.buildkit.cache.v0"`
	History []struct {
		Created    *time.Time `json:"created"`
		EmptyLayer bool       `json:"empty_layer"`
	} `json:"history"`
}

// image reads the records inside an image's config.
func (r *reader) image(ctx context.Context, m documentJSON) error {
	var c imageJSON
	if err := r.read(ctx, m.Config, &c); err != nil {
		return err
	}
	if c.Cache == nil {
		return nil
	}
	if len(c.Rootfs.DiffIDs) != len(m.Layers) {
		return invalid("the image %s has %d layers, and its config %d", m.Config.Digest, len(m.Layers), len(c.Rootfs.DiffIDs))
	}
	var records []recordJSON
	if err := json.Unmarshal(c.Cache, &records); err != nil {
		return invalid("%s is no JSON of its kind: %w", m.Config.Digest, err)
	}
	var times []time.Time
	for _, h := range c.History {
		if !h.EmptyLayer && h.Created != nil {
			times = append(times, *h.Created)
		} else if !h.EmptyLayer {
			times = append(times, time.Time{})
		}
	}
	nodes := make([]node, len(m.Layers))
	for i, b := range m.Layers {
		nodes[i] = node{parent: i - 1, Layer: Layer{DiffID: c.Rootfs.DiffIDs[i], Blob: ocispec.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size}}}
		if i < len(times) {
			nodes[i].Created = times[i]
		}
	}
	return r.add(nodes, records)
}

// add takes records over, whose layers are counted from the first of nodes.
func (r *reader) add(nodes []node, records []recordJSON) error {
	c := r.cache
	if len(records) > maxRecords-len(c.list) || len(nodes) > maxLayers-len(c.layers) {
		return invalid("it has more than %d records, or more than %d layers", maxRecords, maxLayers)
	}
	from := len(c.layers)
	move := func(i int) int {
		if i < 0 || i >= len(nodes) {
			return -2 // there is none such
		}
		return i + from
	}
	for _, n := range nodes {
		if n.parent != -1 {
			n.parent = move(n.parent)
		}
		c.layers = append(c.layers, n)
	}
	first := len(c.list)
	for _, rec := range records {
		for _, links := range rec.Inputs {
			for i := range links {
				if links[i].Link < 0 || links[i].Link >= len(records) {
					links[i].Link = -1
				} else {
					links[i].Link += first
				}
			}
		}
		for i := range rec.Results {
			rec.Results[i].Layer = move(rec.Results[i].Layer)
		}
		for _, chain := range rec.Chains {
			for i := range chain.Layers {
				chain.Layers[i] = move(chain.Layers[i])
			}
		}
		if _, ok := c.records[rec.Digest]; !ok {
			c.records[rec.Digest] = rec
		}
		c.at[rec.Digest] = append(c.at[rec.Digest], len(c.list))
		c.list = append(c.list, rec)
	}
	return nil
}
