package build

import (
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Material is something from outside that a build stands on, as it was.
type Material struct {
	Kind     string // "docker-image", "oci-layout", "git", "http" or "local"
	Ref      string // a name, or an address without credentials
	Digest   digest.Digest
	Commit   string // of git
	Platform *ocispec.Platform
}

// noteSource remembers what a vertex brought.
func (j *Job) noteSource(v *vertex, s *pb.SourceOp, o *output) {
	scheme, rest, _ := strings.Cut(s.Identifier, "://")
	m := Material{Kind: scheme, Ref: rest, Digest: digest.Digest(o.facts[factDigest])}
	switch scheme {
	case "docker-image", "oci-layout":
		if p := v.platform(); p.OS != "" {
			m.Platform = &p
		}
	case "git":
		where, fragment, _ := strings.Cut(rest, "#")
		m.Ref, m.Commit = "https://"+where, o.facts["commit"]
		if full := s.Attrs[pb.AttrFullRemoteURL]; full != "" {
			m.Ref = full
		}
		if m.Ref = shown(m.Ref); fragment != "" {
			m.Ref += "#" + fragment
		}
	case "http", "https":
		m.Kind, m.Ref = "http", shown(s.Identifier)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.materials == nil {
		j.materials = map[digest.Digest]Material{}
	}
	j.materials[v.digest] = m
}

// Material is what a vertex that is a source brought, if it did.
func (j *Job) Material(vertex digest.Digest) (Material, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	m, found := j.materials[vertex]
	return m, found
}

// LayersOf are those of a result of a vertex, nil if it is not done or no tree.
func (j *Job) LayersOf(vertex digest.Digest, index int) []Layer {
	o := j.solvedOutput(vertex, index)
	if o == nil {
		return nil
	}
	return o.layers
}
