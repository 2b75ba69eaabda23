package catalog

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/hello"
	"github.com/tarehq/tare/reference"
)

// Found is an image that a user's words led to.
type Found struct {
	Target   ocispec.Descriptor
	Name     string          // the canonical name, "" when it was an ID
	All      []content.Entry // every entry of the target
	ByDigest bool            // it was called by a digest of its repository
}

// Resolve finds the image that ref means: a name, a name with a digest, an ID
// or the beginning of one. Of an index it takes this machine's platform, or
// the first that is here. It is fault.NotFound with Docker's words when there
// is none. It reads memory, and the config once.
func (s *Catalog) Resolve(ctx context.Context, ref string) (Image, error) {
	return s.ResolvePlatform(ctx, ref, "")
}

// ResolvePlatform is Resolve for a platform ("linux/arm64"); "" is any.
func (s *Catalog) ResolvePlatform(ctx context.Context, ref, platform string) (Image, error) {
	f, m, err := s.Chosen(ctx, ref, platform)
	if err != nil {
		return Image{}, err
	}
	manifest := m.Desc
	manifest.Platform = &m.Platform
	return Image{
		ID: f.Target.Digest, Name: f.Name, Manifest: manifest, Config: m.Detail.Config, ChainID: m.Detail.Chain(),
		DiffIDs: m.Detail.Config.RootFS.DiffIDs, Platform: m.Platform, Layers: m.Detail.Manifest.Layers,
	}, nil
}

// Chosen finds an image and picks its manifest for a platform, "" for any.
func (s *Catalog) Chosen(ctx context.Context, ref, platform string) (Found, Member, error) {
	f, err := s.Find(ctx, ref)
	if err != nil {
		return Found{}, Member{}, err
	}
	m, err := s.Choose(f.Target, platform, FamiliarTagged(ref))
	return f, m, err
}

// ID is what ref means now, "" when there is no such image. It reads memory
// alone.
func (s *Catalog) ID(ref string) digest.Digest {
	f, err := Lookup(s.content.Index(), ref)
	if err != nil {
		return ""
	}
	return f.Target.Digest
}

// FamiliarTagged writes a reference as Docker's errors do: with its tag.
func FamiliarTagged(ref string) string {
	if reference.IsIdentifier(ref) {
		return "sha256:" + ref
	}
	if reference.IsDigest(ref) {
		return ref
	}
	if r, err := reference.Parse(ref); err == nil {
		return r.Familiar()
	}
	return ref
}

// NoSuchImage is the error of what means none.
func NoSuchImage(ref string) error {
	return fault.New(fault.NotFound, "No such image: %s", FamiliarTagged(ref))
}

// Find finds what ref means. The built-in image is made again when it is asked for by
// name.
func (s *Catalog) Find(ctx context.Context, ref string) (Found, error) {
	f, err := Lookup(s.content.Index(), ref)
	if fault.KindOf(err) == fault.NotFound {
		if r, e := reference.Parse(ref); e == nil && r.String() == hello.Name {
			if err := s.hello.Make(ctx); err != nil {
				return Found{}, err
			}
			return Lookup(s.content.Index(), ref)
		}
	}
	return f, err
}

// Lookup finds what ref means in an index of names.
func Lookup(ix *content.Index, ref string) (Found, error) {
	id := ref
	if reference.IsIdentifier(ref) {
		id = "sha256:" + ref
	}
	if reference.IsDigest(id) {
		if all := ix.Of(digest.Digest(id)); len(all) > 0 {
			return Found{Target: all[0].Target, All: all}, nil
		}
		return Found{}, NoSuchImage(id)
	}
	r, err := reference.Parse(ref)
	if err == nil {
		if e, ok := lookupName(ix, r); ok {
			return Found{Target: e.Target, Name: e.Name, All: ix.Of(e.Target.Digest), ByDigest: r.Digest != "" && r.Tag == ""}, nil
		}
	}
	if algorithm, prefix, ok := reference.IDPrefix(ref); ok {
		f, ok, ambiguous := lookupPrefix(ix, digest.Algorithm(algorithm), prefix)
		if ambiguous {
			return Found{}, fault.New(fault.NotFound, "ambiguous reference")
		}
		if ok {
			return f, nil
		}
	}
	if err != nil {
		return Found{}, err
	}
	return Found{}, NoSuchImage(ref)
}

// lookupName finds a name; with a digest, any name of the repository that
// points to it.
func lookupName(ix *content.Index, r reference.Ref) (content.Entry, bool) {
	if r.Digest == "" {
		return ix.Lookup(r.String())
	}
	var match content.Entry
	for _, e := range ix.Of(digest.Digest(r.Digest)) {
		n, err := reference.ParseBare(e.Name)
		if e.Name == "" || err != nil || n.Repository() != r.Repository() {
			continue
		}
		if match.Name == "" || n.Tag == r.Tag {
			match = e
		}
	}
	return match, match.Name != ""
}

func lookupPrefix(ix *content.Index, algorithm digest.Algorithm, prefix string) (f Found, ok, ambiguous bool) {
	for _, e := range ix.Entries() {
		d := e.Target.Digest
		if algorithm != "" && d.Algorithm() != algorithm || !strings.HasPrefix(d.Encoded(), prefix) {
			continue
		}
		if ok && d != f.Target.Digest {
			return Found{}, false, true
		}
		f, ok = Found{Target: e.Target}, true
	}
	if ok {
		f.All = ix.Of(f.Target.Digest)
	}
	return f, ok, false
}

// Parent is the image that the container was made from of which this one was
// committed, "" where none is here.
func (s *Catalog) Parent(id digest.Digest) digest.Digest {
	index := s.content.Index()
	if all := index.Of(id); len(all) > 0 && len(index.Of(all[0].Parent)) > 0 {
		return all[0].Parent
	}
	return ""
}

// Tags lists the names of a repository that have a tag.
func (s *Catalog) Tags(repository string) (tags []content.Entry) {
	for _, e := range s.content.Index().Entries() {
		if r, err := reference.ParseBare(e.Name); e.Name != "" && err == nil && r.Tag != "" && r.Repository() == repository {
			tags = append(tags, e)
		}
	}
	return tags
}
