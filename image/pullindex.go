package image

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/image/platform"
)

// choose picks the manifests of an index to fetch: the best of the platform and
// what attests it. An index of no platforms is no image: all of it is fetched.
func (p *pull) choose(index *ocispec.Index) ([]ocispec.Descriptor, error) {
	want := platform.Host()
	if p.platform != "" {
		want, _ = platform.Parse(p.platform) // checked before
	}
	best, platforms := -1, []string{}
	for i, d := range index.Manifests {
		if d.Platform == nil || d.Annotations[catalog.AnnotationRefType] != "" {
			continue
		}
		have := platform.Normalize(*d.Platform)
		platforms = append(platforms, platform.Format(have))
		if platform.Matches(want, have) && (best < 0 || platform.Closer(want, have, platform.Normalize(*index.Manifests[best].Platform))) {
			best = i
		}
	}
	if len(platforms) == 0 {
		// What else an index may hold, nobody knows where to find.
		return slices.DeleteFunc(slices.Clone(index.Manifests), func(d ocispec.Descriptor) bool { return !content.IsNode(d.MediaType) }), nil
	}
	if best < 0 {
		slices.Sort(platforms)
		return nil, fault.New(fault.NotFound, "no matching manifest for %s in the manifest list entries: %s has it for %s",
			platform.Format(want), p.ref.Familiar(), strings.Join(slices.Compact(platforms), ", "))
	}
	chosen := []ocispec.Descriptor{index.Manifests[best]}
	for _, d := range index.Manifests {
		if d.Annotations[catalog.AnnotationRefType] == "attestation-manifest" && d.Annotations[catalog.AnnotationRefDigest] == chosen[0].Digest.String() {
			chosen = append(chosen, d)
		}
	}
	return chosen, nil
}
