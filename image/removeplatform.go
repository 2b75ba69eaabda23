package image

import (
	"context"
	"log/slog"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/platform"
)

// removePlatforms takes the content of some platforms from an image, whose
// names and whose index stay as they are: it can be pulled or loaded again. What
// another image has too stays.
func (s *Service) removePlatforms(ctx context.Context, ref string, o RemoveOptions) ([]wire.DeleteResponse, error) {
	f, err := catalog.Lookup(s.content.Index(), ref)
	if err != nil {
		return nil, err
	}
	var gone []ocispec.Descriptor
	for _, asked := range o.Platforms {
		m, err := s.Catalog.Choose(f.Target, asked, catalog.FamiliarTagged(ref))
		if err != nil {
			return nil, err
		}
		if m.Desc.Digest == f.Target.Digest {
			return nil, fault.New(fault.Conflict, "conflict: unable to delete platform %s of %s - it is the only one of the image: remove the image", platform.Format(m.Platform), catalog.FamiliarTagged(ref))
		}
		if err := s.checkPlatform(f, m, o.Force); err != nil {
			return nil, err
		}
		gone = append(gone, m.Desc)
		for _, other := range s.Catalog.Members(f.Target) {
			if other.Kind == wire.ManifestKindAttestation && other.Attests == m.Desc.Digest {
				gone = append(gone, other.Desc)
			}
		}
	}
	answer := []wire.DeleteResponse{}
	for _, d := range gone {
		if _, here := s.content.Size(d.Digest); !here || s.elsewhere(f, d.Digest) {
			continue
		}
		if err := s.content.Forget(d.Digest); err != nil {
			return answer, err
		}
		s.Catalog.Forget(d.Digest)
		answer = append(answer, wire.DeleteResponse{Deleted: d.Digest.String()})
	}
	if err := s.content.Collect(); err != nil {
		slog.WarnContext(ctx, "nothing was cleaned up in the image store", "error", err)
	}
	return answer, nil
}

// checkPlatform refuses to remove what containers of the image may run on: they
// run this machine's platform unless told otherwise.
func (s *Service) checkPlatform(f catalog.Found, m catalog.Member, force bool) error {
	uses := s.Catalog.Uses()[f.Target.Digest]
	if best, err := s.Catalog.Choose(f.Target, "", ""); err != nil || best.Desc.Digest != m.Desc.Digest || len(uses) == 0 {
		return nil
	}
	what := platform.Format(m.Platform) + " of " + shortID(f.Target.Digest)
	for _, u := range uses {
		if u.Running {
			return conflict(what, "cannot be forced", "image is being used by running container "+short(u.Container))
		}
	}
	if !force {
		return conflict(what, "must be forced", "image is being used by stopped container "+short(uses[0].Container))
	}
	return nil
}

// elsewhere tells whether another image has the manifest too.
func (s *Service) elsewhere(f catalog.Found, d digest.Digest) bool {
	for _, e := range s.content.Index().Entries() {
		if e.Target.Digest == f.Target.Digest {
			continue
		}
		if e.Target.Digest == d {
			return true
		}
		for _, m := range s.Catalog.Members(e.Target) {
			if m.Desc.Digest == d {
				return true
			}
		}
	}
	return false
}
