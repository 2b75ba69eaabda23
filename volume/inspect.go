package volume

import (
	"context"

	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
)

// Inspect tells all about a volume. Of a plugin's the plugin is asked, for a few
// seconds at most.
func (s *Service) Inspect(ctx context.Context, name string) (wire.Volume, error) {
	r, ok := s.lookup(name)
	if ok && r.Driver == Local {
		return s.wire(r, nil), nil
	}
	var v *external
	var err error
	if ok {
		v, err = s.lookupExternal(ctx, r.Driver, name)
	} else if v = s.probe(ctx, name); v != nil {
		r = Record{Name: name, Driver: v.driver}
	}
	switch {
	case err != nil:
		return wire.Volume{}, fault.New(fault.KindOf(err), "get %s: error while checking if volume %q exists in driver %q: %w", name, name, r.Driver, err)
	case v == nil:
		return wire.Volume{}, fault.New(fault.NotFound, "get %s: no such volume", name)
	}
	return s.wire(r, v), nil
}
