package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	MaxConfig  = 8 << 20
	MaxLayers  = overlayfs.MaxLower - 2 // below them lie the mount points, above in a view a container's changes
	MaxNesting = 8                      // indexes in indexes
	MaxNode    = 4 << 20                // bytes of one manifest or index
	MaxMembers = 10_000                 // manifests of one image
	MaxParsed  = 64 << 20               // bytes of an image's indexes, manifests and configs, which are kept parsed
)

// BuildKit's marks of a manifest that attests another one.
const (
	AnnotationRefType   = "vnd.docker.reference.type"
	AnnotationRefDigest = "vnd.docker.reference.digest"
)

// Member is one manifest of an image: the only one, or one of an index.
type Member struct {
	Desc      ocispec.Descriptor
	Kind      wire.ManifestKind
	Attests   digest.Digest // what an attestation is about
	Platform  ocispec.Platform
	Available bool    // all its content is here
	Size      int64   // bytes of its content that are here
	Detail    *Detail // of an image whose config is here, otherwise nil
}

// Detail is what an image's manifest and config say. It never changes.
type Detail struct {
	Manifest *ocispec.Manifest
	Config   dockerspec.DockerOCIImage
	Platform ocispec.Platform // normalized
	Chains   []digest.Digest  // of each layer, lowest first
	Size     int64            // of all content, 0 while some is missing
	parsed   int64            // bytes of manifest and config
}

// Chain names the topmost layer; "" without layers.
func (d *Detail) Chain() digest.Digest {
	if len(d.Chains) == 0 {
		return ""
	}
	return d.Chains[len(d.Chains)-1]
}

// Members lists the manifests that the target leads to, in their order. What
// is damaged or missing has no detail; it is told when it is used.
func (s *Catalog) Members(target ocispec.Descriptor) []Member {
	if content.IsNode(target.MediaType) && !content.IsIndex(target.MediaType) {
		return []Member{s.member(target)}
	}
	members, _, _ := s.Survey(target)
	return members
}

// Survey is Members with how many bytes were parsed for it, and whether the target
// has more than an image may have, which is left out.
func (s *Catalog) Survey(target ocispec.Descriptor) (members []Member, parsed int64, over bool) {
	l := lister{s: s, seen: map[digest.Digest]bool{}}
	l.add(target, 0)
	return l.found, l.parsed, l.over
}

// lister gathers the manifests of one image, each once. Indexes that name the
// same content over and over would make millions of a few kilobytes.
type lister struct {
	s      *Catalog
	found  []Member
	seen   map[digest.Digest]bool
	parsed int64
	over   bool // there are more than an image may have
}

func (l *lister) add(d ocispec.Descriptor, depth int) {
	if l.seen[d.Digest] || l.over || !content.IsNode(d.MediaType) { // an index may hold other things too
		return
	}
	l.seen[d.Digest] = true
	if l.parsed > MaxParsed || len(l.found) == MaxMembers {
		l.over = true
		return
	}
	if !content.IsIndex(d.MediaType) {
		m := l.s.member(d)
		if m.Detail != nil {
			l.parsed += m.Detail.parsed
		} else if n, err := l.s.content.Node(d); err == nil {
			l.parsed += n.Size
		}
		l.found = append(l.found, m)
		return
	}
	n, err := l.s.content.Node(d)
	if err != nil || depth > MaxNesting {
		return
	}
	l.parsed += n.Size
	for _, c := range n.Index.Manifests {
		l.add(c, depth+1)
	}
}

func (s *Catalog) member(d ocispec.Descriptor) Member {
	m := Member{Desc: d, Kind: wire.ManifestKindImage}
	if d.Platform != nil {
		m.Platform = *d.Platform
	}
	if d.Annotations[AnnotationRefType] == "attestation-manifest" {
		m.Kind = wire.ManifestKindAttestation
		m.Attests = digest.Digest(d.Annotations[AnnotationRefDigest])
	}
	if m.Kind == wire.ManifestKindImage {
		detail, err := s.Detail(d)
		switch {
		case err == nil:
			m.Detail = detail
			m.Platform = detail.Platform
			if detail.Size > 0 {
				m.Available, m.Size = true, detail.Size
				return m
			}
		case errors.Is(err, ErrNoImage):
			m.Kind = wire.ManifestKindUnknown
		}
	}
	m.Size, m.Available = s.Present(d)
	return m
}

// Present adds up the content of a manifest that is here and tells whether
// that is all.
func (s *Catalog) Present(d ocispec.Descriptor) (size int64, all bool) {
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

// ErrNoImage is what Detail says of a manifest of something else.
var ErrNoImage = errors.New("the manifest is not that of a container image")

// Detail reads what a manifest and its config say, and remembers it when all of the
// image is here.
func (s *Catalog) Detail(d ocispec.Descriptor) (*Detail, error) {
	if v, ok := s.details.Load(d.Digest); ok {
		return v.(*Detail), nil
	}
	n, err := s.content.Node(d)
	if err != nil {
		return nil, err
	}
	if n.Manifest == nil {
		return nil, ErrNoImage
	}
	switch n.Manifest.Config.MediaType {
	case ocispec.MediaTypeImageConfig, content.DockerConfig:
	default:
		return nil, ErrNoImage
	}
	if l := n.Manifest.Layers; len(l) > 0 && !slices.ContainsFunc(l, IsLayer) {
		return nil, ErrNoImage // signatures and the like borrow the config's type
	}
	data, err := s.content.Read(n.Manifest.Config.Digest, MaxConfig)
	if err != nil {
		return nil, err
	}
	det := &Detail{Manifest: n.Manifest, parsed: n.Size + int64(len(data))}
	if err := json.Unmarshal(data, &det.Config); err != nil {
		return nil, fault.New(fault.Invalid, "the config of image %s cannot be read: %w", d.Digest, err)
	}
	det.Platform = platform.Normalize(det.Config.Platform)
	if err := det.check(d.Digest); err != nil {
		return nil, err
	}
	if size, all := s.Present(d); all {
		// Kept only when whole: what is named stays, what is missing may come.
		det.Size = size
		s.details.Store(d.Digest, det)
	}
	return det, nil
}

// IsLayer tells whether something is a layer of an image, in any compression.
func IsLayer(d ocispec.Descriptor) bool {
	return strings.HasPrefix(d.MediaType, "application/vnd.oci.image.layer.") || strings.HasPrefix(d.MediaType, content.DockerLayer) ||
		strings.HasPrefix(d.MediaType, unpack.DockerForeign)
}

func (d *Detail) check(id digest.Digest) error {
	diffs := d.Config.RootFS.DiffIDs
	if len(diffs) != len(d.Manifest.Layers) {
		return fault.New(fault.Invalid, "image %s has %d layers and %d layer digests in its config", id, len(d.Manifest.Layers), len(diffs))
	}
	if len(diffs) > MaxLayers {
		return fault.New(fault.Invalid, "image %s has %d layers, more than %d", id, len(diffs), MaxLayers)
	}
	var chain digest.Digest
	for _, diff := range diffs {
		if err := diff.Validate(); err != nil {
			return fault.New(fault.Invalid, "image %s has the layer digest %q, which is none: %w", id, diff, err)
		}
		chain = snapshot.ChainID(chain, diff)
		d.Chains = append(d.Chains, chain)
	}
	return nil
}

// Choose picks the manifest of the target to use. When no platform is asked for it is
// this machine's, or else the first that is here; ref is what the user called
// it, for the errors.
func (s *Catalog) Choose(target ocispec.Descriptor, asked, ref string) (Member, error) {
	want := platform.Host()
	if asked != "" {
		var err error
		if want, err = platform.Parse(asked); err != nil {
			return Member{}, err
		}
	}
	var first, wrong *Member
	members := s.Members(target)
	for i := range members {
		m := &members[i]
		switch {
		case m.Kind != wire.ManifestKindImage:
		case m.Detail == nil:
			wrong = m
		case platform.Matches(want, m.Platform):
			return *m, nil
		case first == nil:
			first = m
		}
	}
	switch {
	case asked != "":
		return Member{}, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, platform.Format(want))
	case first != nil:
		return *first, nil
	case wrong != nil:
		if _, err := s.Detail(wrong.Desc); err != nil {
			return Member{}, fmt.Errorf("image with reference %s was found but cannot be used: %w", ref, err)
		}
	}
	return Member{}, fault.New(fault.NotFound, "image with reference %s was found but does not provide any platform", ref)
}

// Representative picks the manifest that stands for the whole image: this
// machine's, or the first that has a config, or nil.
func Representative(members []Member) *Member {
	var first *Member
	for i := range members {
		m := &members[i]
		if m.Detail == nil {
			continue
		}
		if platform.Matches(platform.Host(), m.Platform) {
			return m
		}
		if first == nil {
			first = m
		}
	}
	return first
}

// ChainsOf lists the layers of all platforms, each once.
func ChainsOf(members []Member) (chains []digest.Digest) {
	if len(members) == 1 && members[0].Detail != nil {
		return members[0].Detail.Chains
	}
	seen := map[digest.Digest]bool{}
	for _, m := range members {
		if m.Detail == nil {
			continue
		}
		for _, chain := range m.Detail.Chains {
			if !seen[chain] {
				seen[chain] = true
				chains = append(chains, chain)
			}
		}
	}
	return chains
}

// Narrow narrows an image down: to the manifest of one platform, or to an
// index of which only the manifests of several platforms count, with what
// attests them. Without platforms, or when it has no other, only is nil.
func (s *Catalog) Narrow(target ocispec.Descriptor, platforms []string, ref string) (narrow ocispec.Descriptor, only map[digest.Digest]bool, err error) {
	if len(platforms) == 0 {
		return target, nil, nil
	}
	only = map[digest.Digest]bool{}
	for _, platform := range platforms {
		m, err := s.Choose(target, platform, ref)
		if err != nil {
			return target, nil, err
		}
		only[m.Desc.Digest], narrow = true, m.Desc
	}
	if len(only) == 1 {
		return narrow, nil, nil
	}
	for _, m := range s.Members(target) {
		if m.Kind == wire.ManifestKindAttestation && only[m.Attests] {
			only[m.Desc.Digest] = true
		}
	}
	return target, only, nil
}
