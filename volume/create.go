package volume

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
)

// CreateRequest asks for a volume.
type CreateRequest struct {
	Name    string // "" for one without a name of its own
	Driver  string // "" for whichever has the name, else Local
	Options map[string]string
	Labels  map[string]string

	Holder   string // who is being made to use it, see Hold
	Existing bool   // it has to be there
	Volatile bool   // it need not survive power loss
}

// Create makes a volume, or finds the one that has the name: options and labels
// are those of the first time. It survives power loss from then on.
func (s *Service) Create(ctx context.Context, req CreateRequest) (wire.Volume, error) {
	r, _, err := s.create(ctx, req)
	if err != nil {
		return wire.Volume{}, err
	}
	return s.wire(r, nil), nil
}

// Hold is Create for a container that is being made: nobody can remove the volume
// until Release, from when on the container is known to use it. made tells that it
// was not there before.
func (s *Service) Hold(ctx context.Context, req CreateRequest) (r Record, made bool, err error) {
	return s.create(ctx, req)
}

// Release lets go of what was held for the container.
func (s *Service) Release(container string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, holders := range s.holds {
		holders = slices.DeleteFunc(holders, func(h string) bool { return h == container })
		if s.holds[name] = holders; len(holders) == 0 {
			delete(s.holds, name)
		}
	}
}

func (s *Service) create(ctx context.Context, req CreateRequest) (r Record, made bool, err error) {
	req.anonymous()
	unlock, err := s.ops.Lock(ctx, req.Name)
	if err != nil {
		return r, false, err
	}
	defer unlock()
	r, there := s.lookup(req.Name)
	switch {
	case there && req.Driver != "" && req.Driver != r.Driver:
		if req.Driver != Local {
			if _, err := s.driver(ctx, req.Driver); err != nil {
				return r, false, fault.New(fault.KindOf(err), "create %s: %w", r.Name, err)
			}
		}
		return r, false, fault.New(fault.Conflict, "create %s: driver '%s' already has volume '%s': volume name must be unique", r.Name, r.Driver, r.Name)
	case !there && req.Existing:
		return r, false, fault.New(fault.NotFound, "get %s: no such volume", req.Name)
	case !there:
		if v := s.elsewhere(ctx, &req); v != nil {
			req.Driver = v.driver
		}
		if r, err = s.make(ctx, req); err != nil {
			return r, false, fault.New(fault.KindOf(err), "create %s: %w", req.Name, err)
		}
	}
	if req.Holder != "" {
		s.mu.Lock()
		s.holds[r.Name] = append(s.holds[r.Name], req.Holder)
		s.mu.Unlock()
	}
	return r, !there, nil
}

// elsewhere finds a plugin that has a volume of the name, if no driver is named.
func (s *Service) elsewhere(ctx context.Context, req *CreateRequest) *external {
	if req.Driver != "" {
		return nil
	}
	return s.probe(ctx, req.Name)
}

// make makes a volume under its name's lock. A plugin makes its own before there
// is a record: what it cannot make has none.
func (s *Service) make(ctx context.Context, req CreateRequest) (Record, error) {
	r := Record{Name: req.Name, Driver: req.Driver, Options: req.Options, Labels: req.Labels, Created: time.Now()}
	if r.Driver == "" {
		r.Driver = Local
	}
	if err := s.check(&r); err != nil {
		return r, err
	}
	if r.Driver != Local {
		if err := s.createExternal(ctx, &r); err != nil {
			return r, err
		}
	}
	dir, err := s.stage(r, !req.Volatile)
	if err != nil {
		return r, err
	}
	if err := s.publish(dir, r, !req.Volatile); err != nil {
		return r, errors.Join(err, s.scrap(dir))
	}
	s.tell(r, events.ActionCreate)
	return r, nil
}

func (s *Service) check(r *Record) error {
	if r.Driver == Local {
		return errors.Join(CheckName(r.Name), checkOptions(r.Options))
	}
	if strings.HasPrefix(r.Name, ".") || strings.ContainsAny(r.Name, "/\x00") || len(r.Name) > 255 {
		return fault.New(fault.Invalid, "%q cannot be the name of a volume here: it is a directory's name, too", r.Name)
	}
	return nil
}
