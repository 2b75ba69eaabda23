// Package cacheio is the form in which builds hand their cache to others, which
// is BuildKit's: an artifact of layers with a config of the type
// application/vnd.buildkit.cacheconfig.v0, as an image manifest or an index, or
// the config's records alone inside an image's config.
//
// The config has layers, each with the one below it, and records: a key, and what
// it came to as one of the layers with all below. A record of ours has the key of
// build.Solver's as its digest and stands on no other. One of BuildKit's has its key of
// the operation, and says by which records its inputs are known: see Match.
//
// What is read was written by somebody: it is bounded, and every link is checked.
package cacheio

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// MediaType is that of the config.
const MediaType = "application/vnd.buildkit.cacheconfig.v0"

// Annotations of a layer's descriptor.
const (
	annotationDiffID  = "containerd.io/uncompressed"
	annotationCreated = "buildkit/createdat"
)

// The bounds of what is read: bytes of a document, and counts.
const (
	MaxDocument = 16 << 20
	maxRecords  = 100_000
	maxLayers   = 100_000
	maxDepth    = 500 // layers of one result
	maxNested   = 100 // manifests of an image's index
)

// Layer is a layer of a result.
type Layer struct {
	Blob    ocispec.Descriptor // no digest: only the DiffID is known
	DiffID  digest.Digest
	Created time.Time
}

// Record is what a key came to: layers, the lowest first. Without Blobs the
// layers are not in the cache, and only what they are is known: a key that
// depends on them can be made, and its record found.
type Record struct {
	Key    digest.Digest
	Exact  digest.Digest // "" or another key of the same, by which the writer knows it
	Layers []Layer
	Blobs  bool
	// Links are for each of its inputs those that stand for it, of a record that is
	// known by them; nil of one that is known by its key alone.
	Links [][]Link
}

// Link is a record that stands for an input, by its number, and the part of it that counts.
type Link struct {
	Selector digest.Digest
	Record   int
}

// Cache is a cache that was read.
type Cache struct {
	layers  []node
	records map[digest.Digest]recordJSON
	list    []recordJSON            // all, as they were written
	at      map[digest.Digest][]int // in list
}

// node is a layer with the one below it, -1 for none.
type node struct {
	Layer
	parent int
}

// Lookup finds the record of a key.
func (c *Cache) Lookup(key digest.Digest) (Record, bool) {
	r, ok := c.records[key]
	if !ok {
		return Record{}, false
	}
	return c.record(r)
}

// Input is what is known of an operation's input: the records of it, which part of it
// counts, and the digest of what is in that part, "" if that is not known or counts not.
type Input struct {
	Records  map[int]bool
	Selector digest.Digest
	Content  digest.Digest
}

// Linked tells whether there are records that stand on others, as BuildKit's do.
func (c *Cache) Linked() bool {
	return slices.ContainsFunc(c.list, func(r recordJSON) bool { return len(r.Inputs) > 0 })
}

// Match lists the records of an operation with the inputs, by its key.
func (c *Cache) Match(key digest.Digest, inputs []Input) (found []int) {
	for _, i := range c.at[key] {
		r, fits := c.list[i], len(c.list[i].Inputs) == len(inputs)
		for n := 0; fits && n < len(inputs); n++ {
			in := inputs[n]
			fits = slices.ContainsFunc(r.Inputs[n], func(l linkJSON) bool {
				if l.Link < 0 || l.Link >= len(c.list) {
					return false
				}
				return l.Selector == in.Selector && in.Records[l.Link] ||
					l.Selector == "" && in.Content != "" && c.list[l.Link].Digest == in.Content && len(c.list[l.Link].Inputs) == 0
			})
		}
		if fits {
			found = append(found, i)
		}
	}
	return found
}

// Result is what one of the records came to.
func (c *Cache) Result(i int) (Record, bool) { return c.record(c.list[i]) }

func (c *Cache) record(r recordJSON) (Record, bool) {
	found := Record{Key: r.Digest}
	if r.Exact.Validate() == nil {
		found.Exact = r.Exact
	}
	for _, result := range r.Results {
		if layers, ok := c.chain(result.Layer); ok {
			found.Layers, found.Blobs = layers, true
			return found, true
		}
	}
	for _, result := range r.Chains {
		if layers, ok := c.listed(result.Layers); ok {
			found.Layers, found.Blobs = layers, true
			return found, true
		}
	}
	if len(r.DiffIDs) == 0 || len(r.DiffIDs) > maxDepth {
		return Record{}, false
	}
	for _, d := range r.DiffIDs {
		if d.Validate() != nil {
			return Record{}, false
		}
		found.Layers = append(found.Layers, Layer{DiffID: d})
	}
	return found, true
}

// chain is a layer with all below it.
func (c *Cache) chain(i int) (layers []Layer, ok bool) {
	for ; i != -1; i = c.layers[i].parent {
		if i < 0 || i >= len(c.layers) || len(layers) == maxDepth || !c.layers[i].usable() {
			return nil, false
		}
		layers = append(layers, c.layers[i].Layer)
	}
	slices.Reverse(layers)
	return layers, len(layers) > 0
}

func (c *Cache) listed(indexes []int) (layers []Layer, ok bool) {
	for _, i := range indexes {
		if i < 0 || i >= len(c.layers) || len(layers) == maxDepth || !c.layers[i].usable() {
			return nil, false
		}
		layers = append(layers, c.layers[i].Layer)
	}
	return layers, len(layers) > 0
}

// usable tells whether the layer is in the manifest, with all that is needed.
func (n node) usable() bool {
	return n.Blob.Digest.Validate() == nil && n.DiffID.Validate() == nil && n.Blob.Size >= 0
}

// Len is how many keys there are.
func (c *Cache) Len() int { return len(c.records) }

// The config as JSON.
type (
	configJSON struct {
		Layers  []layerJSON  `json:"layers,omitempty"`
		Records []recordJSON `json:"records,omitempty"`
	}
	layerJSON struct {
		Blob        digest.Digest `json:"blob,omitempty"`
		Parent      int           `json:"parent,omitempty"` // 0 is a layer, too: -1 is none
		Annotations *noteJSON     `json:"annotations,omitempty"`
	}
	noteJSON struct {
		MediaType string        `json:"mediaType,omitempty"`
		DiffID    digest.Digest `json:"diffID,omitempty"`
		Size      int64         `json:"size,omitempty"`
		CreatedAt time.Time     `json:"createdAt"`
	}
	recordJSON struct {
		Results []resultJSON  `json:"layers,omitempty"`
		Chains  []chainJSON   `json:"chains,omitempty"`
		Digest  digest.Digest `json:"digest,omitempty"`
		Inputs  [][]linkJSON  `json:"inputs,omitempty"`
		// Fields of our own, which BuildKit passes over.
		DiffIDs []digest.Digest `json:"tare.diffIDs,omitempty"`
		Exact   digest.Digest   `json:"tare.exact,omitempty"`
	}
	linkJSON struct {
		Selector digest.Digest `json:"selector,omitempty"`
		Link     int           `json:"link"` // a record
	}
	resultJSON struct {
		Layer     int       `json:"layer"`
		CreatedAt time.Time `json:"createdAt"`
	}
	chainJSON struct {
		Layers    []int     `json:"layers"`
		CreatedAt time.Time `json:"createdAt"`
	}
)

func invalid(format string, args ...any) error {
	return fault.New(fault.Invalid, "the cache cannot be used: "+format, args...)
}
