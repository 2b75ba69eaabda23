package image

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/content"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/reference"
)

// newName reads the name that an image is to get here. One that would read like
// a digest is refused.
func newName(name string) (reference.Ref, error) {
	r, err := reference.Parse(name)
	if err == nil && digest.Algorithm(r.FamiliarRepository()).Available() {
		err = fault.New(fault.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	return r, err
}

// Tag gives the image source the further name target. A name that pointed
// elsewhere moves; an image that loses its last name by that stays without
// one.
func (s *Service) Tag(ctx context.Context, source, target string) error {
	r, err := newName(target)
	if err != nil {
		return err
	}
	if r.Digest != "" {
		return fault.New(fault.Invalid, "refusing to create a tag with a digest reference")
	}
	f, err := s.Catalog.Find(ctx, source)
	if err != nil {
		return err
	}
	e := content.Entry{Name: r.String(), Target: f.Target, Updated: time.Now()}
	err = s.content.Update(func(ix *content.Index) (*content.Index, error) {
		if len(ix.Of(f.Target.Digest)) == 0 { // removed since it was found
			return nil, catalog.NoSuchImage(source)
		}
		return ix.With(e), nil
	})
	if err != nil {
		return err
	}
	s.publish("tag", e.Target, e.Name)
	return nil
}
