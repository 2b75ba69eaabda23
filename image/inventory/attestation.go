package inventory

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
func (s *Inventory) Attestations(ctx context.Context, ref, platform string, types []string, statements bool) ([]wire.AttestationStatement, error) {
	f, m, err := s.Catalog.Chosen(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	list := []wire.AttestationStatement{}
	for _, other := range s.Catalog.Members(f.Target) {
		if other.Kind != wire.ManifestKindAttestation || other.Attests != m.Desc.Digest {
			continue
		}
		n, err := s.Content.Node(other.Desc)
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

func (s *Inventory) statement(layer ocispec.Descriptor, predicate string, whole bool) (wire.AttestationStatement, error) {
	st := wire.AttestationStatement{Descriptor: layer, PredicateType: predicate}
	if !whole {
		return st, nil
	}
	if _, here := s.Content.Size(layer.Digest); !here {
		return st, nil
	}
	data, err := s.Content.Read(layer.Digest, maxStatement)
	if err != nil {
		return st, err
	}
	if json.Valid(data) {
		st.Statement = (*json.RawMessage)(&data)
	}
	return st, nil
}
