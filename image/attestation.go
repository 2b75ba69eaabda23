package image

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	mediaTypeInToto         = "application/vnd.in-toto+json"
	annotationPredicateType = "in-toto.io/predicate-type"
	maxStatement            = 64 << 20 // bytes; the list of what a big image is made of
)

// Attestations lists the in-toto statements about the image's manifest for the
// platform, "" for this machine's: all, or those of the predicate types. The
// statements themselves are in it when asked for, and here.
func (s *Service) Attestations(ctx context.Context, ref, platform string, types []string, statements bool) ([]wire.AttestationStatement, error) {
	f, m, err := s.chosen(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	list := []wire.AttestationStatement{}
	for _, other := range s.members(f.target) {
		if other.kind != wire.ManifestKindAttestation || other.attests != m.desc.Digest {
			continue
		}
		n, err := s.content.Node(other.desc)
		if err != nil || n.Manifest == nil { // not fetched with the image
			continue
		}
		for _, layer := range n.Manifest.Layers {
			predicate := layer.Annotations[annotationPredicateType]
			if !strings.HasPrefix(layer.MediaType, mediaTypeInToto) || len(types) > 0 && !slices.Contains(types, predicate) {
				continue
			}
			st, err := s.statement(layer, predicate, statements)
			if err != nil {
				return nil, err
			}
			list = append(list, st)
		}
	}
	return list, nil
}

func (s *catalog) statement(layer ocispec.Descriptor, predicate string, whole bool) (wire.AttestationStatement, error) {
	st := wire.AttestationStatement{Descriptor: layer, PredicateType: predicate}
	if !whole {
		return st, nil
	}
	if _, here := s.content.Size(layer.Digest); !here {
		return st, nil
	}
	data, err := s.content.Read(layer.Digest, maxStatement)
	if err != nil {
		return st, err
	}
	if json.Valid(data) {
		st.Statement = (*json.RawMessage)(&data)
	}
	return st, nil
}
