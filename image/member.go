package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/platform"
	"github.com/tarehq/tare/image/unpack"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/snapshot"
)

const (
	maxConfig  = 8 << 20
	maxLayers  = overlayfs.MaxLower - 2 // below them lie the mount points, above in a view a container's changes
	maxNesting = 8                      // indexes in indexes
	maxNode    = 4 << 20                // bytes of one manifest or index
	maxMembers = 10_000                 // manifests of one image
	maxParsed  = 64 << 20               // bytes of an image's indexes, manifests and configs, which are kept parsed
)

// BuildKit's marks of a manifest that attests another one.
const (
	annotationRefType   = "vnd.docker.reference.type"
	annotationRefDigest = "vnd.docker.reference.digest"
)

// catalog knows what the store has of images, and adds configs and manifests; it
// names and removes nothing.
type catalog struct {
	content *content.Store
	layers  *snapshot.Store
	details sync.Map // digest.Digest of a manifest -> *detail
}

// member is one manifest of an image: the only one, or one of an index.
type member struct {
	desc      ocispec.Descriptor
	kind      wire.ManifestKind
	attests   digest.Digest // what an attestation is about
	platform  ocispec.Platform
	available bool    // all its content is here
	size      int64   // bytes of its content that are here
	detail    *detail // of an image whose config is here, otherwise nil
}

// detail is what an image's manifest and config say. It never changes.
type detail struct {
	manifest *ocispec.Manifest
	config   dockerspec.DockerOCIImage
	platform ocispec.Platform // normalized
	chains   []digest.Digest  // of each layer, lowest first
	size     int64            // of all content, 0 while some is missing
	parsed   int64            // bytes of manifest and config
}

func (d *detail) chain() digest.Digest {
	if len(d.chains) == 0 {
		return ""
	}
	return d.chains[len(d.chains)-1]
}

// members lists the manifests that the target leads to, in their order. What
// is damaged or missing has no detail; it is told when it is used.
func (s *catalog) members(target ocispec.Descriptor) []member {
	if content.IsNode(target.MediaType) && !content.IsIndex(target.MediaType) {
		return []member{s.member(target)}
	}
	l := lister{s: s, seen: map[digest.Digest]bool{}}
	l.add(target, 0)
	return l.found
}

// lister gathers the manifests of one image, each once. Indexes that name the
// same content over and over would make millions of a few kilobytes.
type lister struct {
	s      *catalog
	found  []member
	seen   map[digest.Digest]bool
	parsed int64
	over   bool // there are more than an image may have
}

func (l *lister) add(d ocispec.Descriptor, depth int) {
	if l.seen[d.Digest] || l.over || !content.IsNode(d.MediaType) { // an index may hold other things too
		return
	}
	l.seen[d.Digest] = true
	if l.parsed > maxParsed || len(l.found) == maxMembers {
		l.over = true
		return
	}
	if !content.IsIndex(d.MediaType) {
		m := l.s.member(d)
		if m.detail != nil {
			l.parsed += m.detail.parsed
		} else if n, err := l.s.content.Node(d); err == nil {
			l.parsed += n.Size
		}
		l.found = append(l.found, m)
		return
	}
	n, err := l.s.content.Node(d)
	if err != nil || depth > maxNesting {
		return
	}
	l.parsed += n.Size
	for _, c := range n.Index.Manifests {
		l.add(c, depth+1)
	}
}

func (s *catalog) member(d ocispec.Descriptor) member {
	m := member{desc: d, kind: wire.ManifestKindImage}
	if d.Platform != nil {
		m.platform = *d.Platform
	}
	if d.Annotations[annotationRefType] == "attestation-manifest" {
		m.kind = wire.ManifestKindAttestation
		m.attests = digest.Digest(d.Annotations[annotationRefDigest])
	}
	if m.kind == wire.ManifestKindImage {
		detail, err := s.detail(d)
		switch {
		case err == nil:
			m.detail = detail
			m.platform = detail.platform
			if detail.size > 0 {
				m.available, m.size = true, detail.size
				return m
			}
		case errors.Is(err, errNoImage):
			m.kind = wire.ManifestKindUnknown
		}
	}
	m.size, m.available = s.present(d)
	return m
}

// present adds up the content of a manifest that is here and tells whether
// that is all.
func (s *catalog) present(d ocispec.Descriptor) (size int64, all bool) {
	n, err := s.content.Node(d)
	if err != nil {
		return 0, false
	}
	size, all = s.content.Size(d.Digest)
	seen := map[digest.Digest]bool{}
	for _, c := range n.Children() {
		if seen[c.Digest] {
			continue
		}
		seen[c.Digest] = true
		part, ok := s.content.Size(c.Digest)
		size += part
		all = all && ok
	}
	return size, all
}

var errNoImage = errors.New("the manifest is not that of a container image")

func (s *catalog) detail(d ocispec.Descriptor) (*detail, error) {
	if v, ok := s.details.Load(d.Digest); ok {
		return v.(*detail), nil
	}
	n, err := s.content.Node(d)
	if err != nil {
		return nil, err
	}
	if n.Manifest == nil {
		return nil, errNoImage
	}
	switch n.Manifest.Config.MediaType {
	case ocispec.MediaTypeImageConfig, content.DockerConfig:
	default:
		return nil, errNoImage
	}
	if l := n.Manifest.Layers; len(l) > 0 && !slices.ContainsFunc(l, isLayer) {
		return nil, errNoImage // signatures and the like borrow the config's type
	}
	data, err := s.content.Read(n.Manifest.Config.Digest, maxConfig)
	if err != nil {
		return nil, err
	}
	det := &detail{manifest: n.Manifest, parsed: n.Size + int64(len(data))}
	if err := json.Unmarshal(data, &det.config); err != nil {
		return nil, fault.New(fault.Invalid, "the config of image %s cannot be read: %w", d.Digest, err)
	}
	det.platform = platform.Normalize(det.config.Platform)
	if err := det.check(d.Digest); err != nil {
		return nil, err
	}
	if size, all := s.present(d); all {
		// Kept only when whole: what is named stays, what is missing may come.
		det.size = size
		s.details.Store(d.Digest, det)
	}
	return det, nil
}

func isLayer(d ocispec.Descriptor) bool {
	return strings.HasPrefix(d.MediaType, "application/vnd.oci.image.layer.") || strings.HasPrefix(d.MediaType, content.DockerLayer) ||
		strings.HasPrefix(d.MediaType, unpack.DockerForeign)
}

func (d *detail) check(id digest.Digest) error {
	diffs := d.config.RootFS.DiffIDs
	if len(diffs) != len(d.manifest.Layers) {
		return fault.New(fault.Invalid, "image %s has %d layers and %d layer digests in its config", id, len(d.manifest.Layers), len(diffs))
	}
	if len(diffs) > maxLayers {
		return fault.New(fault.Invalid, "image %s has %d layers, more than %d", id, len(diffs), maxLayers)
	}
	var chain digest.Digest
	for _, diff := range diffs {
		if err := diff.Validate(); err != nil {
			return fault.New(fault.Invalid, "image %s has the layer digest %q, which is none: %w", id, diff, err)
		}
		chain = snapshot.ChainID(chain, diff)
		d.chains = append(d.chains, chain)
	}
	return nil
}

// choose picks the manifest of the target to use. When no platform is asked for it is
// this machine's, or else the first that is here; ref is what the user called
// it, for the errors.
func (s *catalog) choose(target ocispec.Descriptor, asked, ref string) (member, error) {
	want := platform.Host()
	if asked != "" {
		var err error
		if want, err = platform.Parse(asked); err != nil {
			return member{}, err
		}
	}
	var first, wrong *member
	members := s.members(target)
	for i := range members {
		m := &members[i]
		switch {
		case m.kind != wire.ManifestKindImage:
		case m.detail == nil:
			wrong = m
		case platform.Matches(want, m.platform):
			return *m, nil
		case first == nil:
			first = m
		}
	}
	switch {
	case asked != "":
		return member{}, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, platform.Format(want))
	case first != nil:
		return *first, nil
	case wrong != nil:
		if _, err := s.detail(wrong.desc); err != nil {
			return member{}, fmt.Errorf("image with reference %s was found but cannot be used: %w", ref, err)
		}
	}
	return member{}, fault.New(fault.NotFound, "image with reference %s was found but does not provide any platform", ref)
}
