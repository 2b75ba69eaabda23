package volume

import (
	"context"

	wire "github.com/moby/moby/api/types/volume"
)

// Inspect tells all about a volume.
func (s *Service) Inspect(_ context.Context, name string) (wire.Volume, error) {
	r, err := s.find("get", name)
	if err != nil {
		return wire.Volume{}, err
	}
	return s.wire(r), nil
}
