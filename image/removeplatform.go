package image

import (
	"context"
	"log/slog"

	wire "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/platform"
)

// removePlatforms takes the content of some platforms from an image, whose
// names and whose index stay as they are: it can be pulled or loaded again. What
// another image has too stays.
func (s *Service) removePlatforms(ctx context.Context, ref string, o RemoveOptions) ([]wire.DeleteResponse, error) {
	f, err := lookup(s.content.Index(), ref)
	if err != nil {
		return nil, err
	}
	var gone []ocispec.Descriptor
	for _, asked := range o.Platforms {
		m, err := s.choose(f.target, asked, familiarTagged(ref))
		if err != nil {
			return nil, err
		}
		if m.desc.Digest == f.target.Digest {
			return nil, fault.New(fault.Conflict, "conflict: unable to delete platform %s of %s - it is the only one of the image: remove the image", platform.Format(m.platform), familiarTagged(ref))
		}
		if err := s.checkPlatform(f, m, o.Force); err != nil {
			return nil, err
		}
		gone = append(gone, m.desc)
		for _, other := range s.members(f.target) {
			if other.kind == wire.ManifestKindAttestation && other.attests == m.desc.Digest {
				gone = append(gone, other.desc)
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
		s.details.Delete(d.Digest)
		answer = append(answer, wire.DeleteResponse{Deleted: d.Digest.String()})
	}
	if err := s.content.Collect(); err != nil {
		slog.WarnContext(ctx, "nothing was cleaned up in the image store", "error", err)
	}
	return answer, nil
}

// checkPlatform refuses to remove what containers of the image may run on: they
// run this machine's platform unless told otherwise.
func (s *Service) checkPlatform(f found, m member, force bool) error {
	uses := s.uses()[f.target.Digest]
	if best, err := s.choose(f.target, "", ""); err != nil || best.desc.Digest != m.desc.Digest || len(uses) == 0 {
		return nil
	}
	what := platform.Format(m.platform) + " of " + shortID(f.target.Digest)
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
func (s *catalog) elsewhere(f found, d digest.Digest) bool {
	for _, e := range s.content.Index().Entries() {
		if e.Target.Digest == f.target.Digest {
			continue
		}
		if e.Target.Digest == d {
			return true
		}
		for _, m := range s.members(e.Target) {
			if m.desc.Digest == d {
				return true
			}
		}
	}
	return false
}
