package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

// Docker's own media types, the elder siblings of OCI's.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

const (
	maxManifest = 4 << 20 // bytes, the limit of registries
	maxDepth    = 8       // indexes in indexes
	// MaxChildren is how many contents a node may name that is followed.
	MaxChildren = 10000
)

// Node is a parsed manifest or index; exactly one of the two is set.
type Node struct {
	Manifest *ocispec.Manifest
	Index    *ocispec.Index
	Size     int64 // bytes that were parsed
}

// reading is what some bytes are taken for. A digest alone does not tell: the
// descriptors of another image may call the same bytes something else.
type reading struct {
	digest      digest.Digest
	node, index bool
}

func readingOf(d ocispec.Descriptor) reading {
	return reading{d.Digest, IsNode(d.MediaType), IsIndex(d.MediaType)}
}

// IsNode tells whether the media type is that of a manifest or an index.
func IsNode(mediaType string) bool {
	return IsIndex(mediaType) || mediaType == ocispec.MediaTypeImageManifest || mediaType == DockerManifest
}

// IsIndex tells whether the media type is that of an index.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == DockerManifestList
}

// Node reads the manifest or index. Callers must not change it.
func (s *Store) Node(d ocispec.Descriptor) (*Node, error) {
	if _, gone := s.forgotten.Load(d.Digest); gone {
		return nil, notHere(d.Digest)
	}
	if n, ok := s.nodes.Load(readingOf(d)); ok {
		return n.(*Node), nil
	}
	data, err := s.Read(d.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	n, err := parseNode(data, d)
	if err != nil {
		return nil, err
	}
	s.nodes.Store(readingOf(d), n)
	return n, nil
}

func parseNode(data []byte, d ocispec.Descriptor) (*Node, error) {
	n, children := &Node{Size: int64(len(data))}, []ocispec.Descriptor(nil)
	if err := checkKind(data, d); err != nil {
		return nil, err
	}
	if IsIndex(d.MediaType) {
		n.Index = &ocispec.Index{}
		if err := json.Unmarshal(data, n.Index); err != nil {
			return nil, fault.New(fault.Invalid, "index %s cannot be read: %w", d.Digest, err)
		}
		children = n.Index.Manifests
	} else {
		n.Manifest = &ocispec.Manifest{}
		if err := json.Unmarshal(data, n.Manifest); err != nil {
			return nil, fault.New(fault.Invalid, "manifest %s cannot be read: %w", d.Digest, err)
		}
		children = n.Children()
	}
	if len(children) > MaxChildren {
		return nil, fault.New(fault.Invalid, "%s names %d contents, more than %d", d.Digest, len(children), MaxChildren)
	}
	for _, c := range children {
		if err := c.Digest.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "%s names the content %q, which is not a digest", d.Digest, c.Digest)
		}
		if c.Size < 0 {
			return nil, fault.New(fault.Invalid, "%s says that the content %s has %d bytes", d.Digest, c.Digest, c.Size)
		}
	}
	return n, nil
}

// checkKind refuses bytes that say they are the other kind of node than the
// descriptor does, or are both at once: programs would see different images in
// them (distribution specification, "image manifest and index confusion").
func checkKind(data []byte, d ocispec.Descriptor) error {
	var doc struct {
		MediaType                 string
		Manifests, Layers, Config json.RawMessage
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return fault.New(fault.Invalid, "%s cannot be read: %w", d.Digest, err)
	}
	index := IsIndex(d.MediaType)
	if given := func(m json.RawMessage) bool { return len(m) > 0 && string(m) != "null" && string(m) != "[]" }; index && (given(doc.Layers) || given(doc.Config)) ||
		!index && given(doc.Manifests) || IsNode(doc.MediaType) && IsIndex(doc.MediaType) != index {
		return fault.New(fault.Invalid, "%s is not of the type %s that it is said to be", d.Digest, d.MediaType)
	}
	return nil
}

// Children returns what the node names: an index's manifests, or a manifest's
// config and layers. An artifact's subject is not a child.
func (n *Node) Children() []ocispec.Descriptor {
	if n.Index != nil {
		return n.Index.Manifests
	}
	children := slices.Clone(n.Manifest.Layers)
	if n.Manifest.Config.Digest != "" {
		children = append([]ocispec.Descriptor{n.Manifest.Config}, children...)
	}
	return children
}

// Walk visits d and all that it names, parents first, each digest once for
// each type that it is given. What is not in the store is not visited. An error
// of visit, a damaged manifest and one that is none end the walk, and so do
// indexes that are nested too deep (fault.Invalid).
func (s *Store) Walk(d ocispec.Descriptor, visit func(ocispec.Descriptor, int64) error) error {
	w := walk{store: s, seen: map[reading]struct{}{}, visit: visit}
	return w.node(d, 0)
}

// Reach is Walk that takes what can be no manifest, and what lies too deep, for
// content that names nothing. Any image may say of another one's layer that it
// is a manifest: that must not keep the rest from being followed.
func (s *Store) Reach(d ocispec.Descriptor, visit func(ocispec.Descriptor, int64) error) error {
	w := walk{store: s, seen: map[reading]struct{}{}, visit: visit, lenient: true}
	return w.node(d, 0)
}

// walk follows what contents name.
type walk struct {
	store   *Store
	seen    map[reading]struct{}
	visit   func(ocispec.Descriptor, int64) error
	lenient bool
}

func (w *walk) node(d ocispec.Descriptor, depth int) error {
	if _, ok := w.seen[readingOf(d)]; ok {
		return nil
	}
	w.seen[readingOf(d)] = struct{}{}
	size, err := w.store.stat(d.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		// Whoever takes this for missing throws away what is below it.
		return fmt.Errorf("cannot follow image content: %w", err)
	}
	if err := w.visit(d, size); err != nil || !IsNode(d.MediaType) {
		return err
	}
	n, err := w.parse(d, depth)
	switch {
	case errors.Is(err, fault.NotFound), w.lenient && errors.Is(err, fault.Invalid):
		return nil
	case err != nil:
		return fmt.Errorf("cannot follow image content: %w", err)
	}
	for _, c := range n.Children() {
		if err := w.node(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) parse(d ocispec.Descriptor, depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, fault.New(fault.Invalid, "indexes are nested deeper than %d at %s", maxDepth, d.Digest)
	}
	return w.store.Node(d)
}
