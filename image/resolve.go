package image

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// found is an image that a user's words led to.
type found struct {
	target   ocispec.Descriptor
	name     string          // the canonical name, "" when it was an ID
	all      []content.Entry // every entry of the target
	byDigest bool            // it was called by a digest of its repository
}

// Resolve finds the image that ref means: a name, a name with a digest, an ID
// or the beginning of one. Of an index it takes this machine's platform, or
// the first that is here. It is fault.NotFound with Docker's words when there
// is none. It reads memory, and the config once.
func (s *Service) Resolve(ctx context.Context, ref string) (Image, error) {
	return s.ResolvePlatform(ctx, ref, "")
}

// ResolvePlatform is Resolve for a platform ("linux/arm64"); "" is any.
func (s *Service) ResolvePlatform(ctx context.Context, ref, platform string) (Image, error) {
	f, m, err := s.chosen(ctx, ref, platform)
	if err != nil {
		return Image{}, err
	}
	manifest := m.desc
	manifest.Platform = &m.platform
	return Image{
		ID: f.target.Digest, Name: f.name, Manifest: manifest, Config: m.detail.config, ChainID: m.detail.chain(),
		DiffIDs: m.detail.config.RootFS.DiffIDs, Platform: m.platform, layers: m.detail.manifest.Layers,
	}, nil
}

// chosen finds an image and picks its manifest for a platform, "" for any.
func (s *Service) chosen(ctx context.Context, ref, platform string) (found, member, error) {
	f, err := s.find(ctx, ref)
	if err != nil {
		return found{}, member{}, err
	}
	m, err := s.choose(f.target, platform, familiarTagged(ref))
	return f, m, err
}

// ID is what ref means now, "" when there is no such image. It reads memory
// alone.
func (s *Service) ID(ref string) digest.Digest {
	f, err := lookup(s.content.Index(), ref)
	if err != nil {
		return ""
	}
	return f.target.Digest
}

// familiarTagged writes a reference as Docker's errors do: with its tag.
func familiarTagged(ref string) string {
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

func noSuchImage(ref string) error {
	return fault.New(fault.NotFound, "No such image: %s", familiarTagged(ref))
}

// find makes the built-in image again when it is asked for by name.
func (s *Service) find(ctx context.Context, ref string) (found, error) {
	f, err := lookup(s.content.Index(), ref)
	if fault.KindOf(err) == fault.NotFound {
		if r, e := reference.Parse(ref); e == nil && r.String() == helloName {
			if err := s.makeHello(ctx); err != nil {
				return found{}, err
			}
			return lookup(s.content.Index(), ref)
		}
	}
	return f, err
}

// lookup finds what ref means in an index of names.
func lookup(ix *content.Index, ref string) (found, error) {
	id := ref
	if reference.IsIdentifier(ref) {
		id = "sha256:" + ref
	}
	if reference.IsDigest(id) {
		if all := ix.Of(digest.Digest(id)); len(all) > 0 {
			return found{target: all[0].Target, all: all}, nil
		}
		return found{}, noSuchImage(id)
	}
	r, err := reference.Parse(ref)
	if err == nil {
		if e, ok := lookupName(ix, r); ok {
			return found{target: e.Target, name: e.Name, all: ix.Of(e.Target.Digest), byDigest: r.Digest != "" && r.Tag == ""}, nil
		}
	}
	if algorithm, prefix, ok := reference.IDPrefix(ref); ok {
		f, ok, ambiguous := lookupPrefix(ix, digest.Algorithm(algorithm), prefix)
		if ambiguous {
			return found{}, fault.New(fault.NotFound, "ambiguous reference")
		}
		if ok {
			return f, nil
		}
	}
	if err != nil {
		return found{}, err
	}
	return found{}, noSuchImage(ref)
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

func lookupPrefix(ix *content.Index, algorithm digest.Algorithm, prefix string) (f found, ok, ambiguous bool) {
	for _, e := range ix.Entries() {
		d := e.Target.Digest
		if algorithm != "" && d.Algorithm() != algorithm || !strings.HasPrefix(d.Encoded(), prefix) {
			continue
		}
		if ok && d != f.target.Digest {
			return found{}, false, true
		}
		f, ok = found{target: e.Target}, true
	}
	if ok {
		f.all = ix.Of(f.target.Digest)
	}
	return f, ok, false
}

// Unpacked makes sure that the image's layers are unpacked and returns the
// topmost one's chain ID. They are since import or load, unless the image is
// of another platform than this machine's.
func (s *Service) Unpacked(ctx context.Context, img Image) (digest.Digest, error) {
	if img.ChainID != "" && !s.layers.Has(img.ChainID) {
		defer s.content.Hold()()
		if err := s.unpacker.Unpack(ctx, img.layers, img.DiffIDs); err != nil {
			return "", err
		}
	}
	// Somebody else may have unpacked them just now: what is not synced the next
	// daemon throws away, below a container that runs.
	return img.ChainID, s.layers.SyncChain(img.ChainID)
}

// UnpackManifest is Unpacked for a manifest that was chosen earlier. Its image
// may have lost its names by now, or be an index that has it among others.
func (s *Service) UnpackManifest(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error) {
	defer s.content.Hold()()
	d, err := s.detail(manifest)
	if err != nil {
		return "", err
	}
	if err := s.unpacker.Unpack(ctx, d.manifest.Layers, d.config.RootFS.DiffIDs); err != nil {
		return "", err
	}
	return d.chain(), s.layers.SyncChain(d.chain())
}
