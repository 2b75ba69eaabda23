package attest

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/common"
	slsa1 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"
	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/purl"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build"
)

// capture is what a definition stands on and asks for.
type capture struct {
	materials []build.Material
	secrets   []*provenance.Secret
	ssh       []*provenance.SSH
	network   bool // a step has one
}

// add adds what a definition has.
func (c *capture) add(job *build.Job, def *pb.Definition) {
	for _, data := range def.GetDef() {
		var op pb.Op
		if op.UnmarshalVT(data) != nil {
			continue // it would not have been solved
		}
		if op.GetSource() != nil {
			if m, ok := job.Material(digest.FromBytes(data)); ok {
				c.material(m)
			}
		}
		if x := op.GetExec(); x != nil {
			c.step(x)
		}
	}
}

func (c *capture) step(x *pb.ExecOp) {
	c.network = c.network || x.Network != pb.NetMode_NONE
	for _, m := range x.Mounts {
		if o := m.SecretOpt; m.MountType == pb.MountType_SECRET && o != nil {
			c.secret(o.ID, o.Optional)
		}
		if o := m.SSHOpt; m.MountType == pb.MountType_SSH && o != nil {
			id := cmp.Or(o.ID, "default")
			if !slices.ContainsFunc(c.ssh, func(s *provenance.SSH) bool { return s.ID == id }) {
				c.ssh = append(c.ssh, &provenance.SSH{ID: id, Optional: o.Optional})
			}
		}
	}
	for _, e := range x.Secretenv {
		c.secret(e.ID, e.Optional)
	}
}

func (c *capture) secret(id string, optional bool) {
	for _, s := range c.secrets {
		if s.ID == id {
			s.Optional = s.Optional && optional
			return
		}
	}
	c.secrets = append(c.secrets, &provenance.Secret{ID: id, Optional: optional})
}

// material adds one. Of an image with a tag the digest is told beside the name.
func (c *capture) material(m build.Material) {
	m.Ref = Clean(m.Ref)
	if name, _, pinned := strings.Cut(m.Ref, "@"); pinned && strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") {
		m.Ref = name
	}
	for _, other := range c.materials {
		if other.Kind == m.Kind && other.Ref == m.Ref && (m.Platform == nil || other.Platform == nil || other.Platform.Architecture == m.Platform.Architecture && other.Platform.Variant == m.Platform.Variant) {
			return
		}
	}
	c.materials = append(c.materials, m)
}

// locals are the client's directories.
func (c *capture) locals() (list []*provenance.LocalSource) {
	for _, m := range c.materials {
		if m.Kind == "local" {
			list = append(list, &provenance.LocalSource{Name: m.Ref})
		}
	}
	slices.SortFunc(list, func(a, b *provenance.LocalSource) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// dependencies are the materials that have an address: images, then git, then
// files, each kind sorted.
func (c *capture) dependencies() (list []slsa1.ResourceDescriptor, err error) {
	order := []string{"docker-image", "oci-layout", "git", "http"}
	sorted := slices.Clone(c.materials)
	slices.SortStableFunc(sorted, func(a, b build.Material) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Ref, b.Ref))
	})
	for _, m := range sorted {
		d := slsa1.ResourceDescriptor{URI: m.Ref}
		if m.Digest != "" {
			d.Digest = slsa.DigestSet{m.Digest.Algorithm().String(): m.Digest.Encoded()}
		}
		switch m.Kind {
		case "docker-image", "oci-layout":
			kind := "docker"
			if m.Kind == "oci-layout" {
				kind = "oci"
			}
			if d.URI, err = purl.RefToPURL(kind, m.Ref, m.Platform); err != nil {
				return nil, err
			}
		case "git":
			d.Digest = commit(m.Commit)
		case "http":
		default:
			continue
		}
		list = append(list, d)
	}
	return list, nil
}

func commit(name string) slsa.DigestSet {
	if len(name) == 64 {
		return slsa.DigestSet{"sha256": name}
	}
	return slsa.DigestSet{"sha1": name}
}

// find is the material that an address of the request's is.
func (c *capture) find(address string) (slsa.DigestSet, bool) {
	bare, _, _ := strings.Cut(address, "#")
	for _, m := range c.materials {
		ref, _, _ := strings.Cut(m.Ref, "#")
		switch {
		case m.Kind == "git" && strings.TrimSuffix(ref, ".git") == strings.TrimSuffix(bare, ".git"):
			return commit(m.Commit), true
		case m.Kind == "http" && m.Ref == address:
			return slsa.DigestSet{m.Digest.Algorithm().String(): m.Digest.Encoded()}, true
		}
	}
	return nil, false
}

// Clean is a text without the user of an address, if it is one that has some.
func Clean(text string) string {
	if !strings.Contains(text, "@") || !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		if _, rest, found := strings.Cut(text, "@"); err != nil && found {
			scheme, _, _ := strings.Cut(text, "://")
			return scheme + "://" + rest
		}
		return text
	}
	if u.User == nil {
		return text
	}
	u.User = nil
	return u.String()
}

// isProxy tells whether a name is one of those by which programs find a proxy,
// whose address may have a password.
func isProxy(name string) bool {
	switch strings.ToLower(name) {
	case "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy":
		return true
	}
	return false
}
