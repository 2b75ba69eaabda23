package volume

import (
	"context"
	"maps"
	"os"
	"time"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/treecopy"
)

// CloneRequest says what a copy of a volume is to be.
type CloneRequest struct {
	Name     string // of the copy; of a snapshot "" for one by the time
	Labels   map[string]string
	Snapshot bool // nobody is to write to it: containers get it read-only
	Freeze   bool // the containers that use the volume stand still until it is made
}

// Clone makes a local volume with the content that another has now. It gets the
// bound of that, and none of its labels: programs remove what bears theirs. The
// copy is whole or not there, and survives power loss when settle has ended.
func (s *Service) Clone(ctx context.Context, name string, req CloneRequest) (wire.Volume, error) {
	from, release, err := s.borrow(ctx, name, "a copy that is being made of it")
	if err != nil {
		return wire.Volume{}, err
	}
	defer release()
	r := Record{Name: req.Name, Driver: Local, Labels: maps.Clone(req.Labels), Created: time.Now(), Snapshot: req.Snapshot}
	if r.Name == "" && req.Snapshot {
		r.Name = from.Name + "-" + r.Created.UTC().Format("20060102T150405.000")
	}
	if size, bounded := from.Options[sizeOption]; bounded && from.Driver == Local {
		r.Options = map[string]string{sizeOption: size}
	}
	err = s.add(ctx, r, func(at *os.File) error {
		content, done, err := s.use(ctx, from)
		if err != nil {
			return err
		}
		defer done()
		thaw, err := s.freeze(ctx, from.Name, req.Freeze)
		if err != nil {
			return err
		}
		defer thaw()
		return treecopy.Clone(ctx, at, dataName, content, func(tree *os.File) error { return bound(tree, r) })
	})
	if err != nil {
		return wire.Volume{}, fault.New(fault.KindOf(err), "clone %s: %w", name, err)
	}
	return s.wire(r, nil), nil
}

// add makes a volume of a name that is free. fill makes its content, as dataName
// in the open directory; meanwhile, and that may be as long as a client likes, the
// name is anybody's.
func (s *Service) add(ctx context.Context, r Record, fill func(at *os.File) error) error {
	if err := CheckName(r.Name); err != nil {
		return err
	}
	if err := s.vacant(r.Name); err != nil {
		return err
	}
	dir, err := s.stageWith(r, false, func(at *os.File) error {
		if err := fill(at); err != nil {
			return err
		}
		return mark(at)
	})
	if err != nil {
		return err
	}
	if err := s.publishNew(ctx, dir, r); err != nil {
		s.discard(dir)
		return err
	}
	s.settle(s.dir(r.Name))
	s.tell(r, events.ActionCreate)
	return nil
}

// publishNew gives a volume its name if that is free still.
func (s *Service) publishNew(ctx context.Context, dir string, r Record) error {
	unlock, err := s.ops.Lock(ctx, r.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.vacant(r.Name); err != nil {
		return err
	}
	return s.publish(dir, r, false)
}

func (s *Service) vacant(name string) error {
	if _, taken := s.lookup(name); taken {
		return fault.New(fault.Conflict, "volume %s exists already: remove it, or choose another name", name)
	}
	return nil
}

// borrow finds a volume that nobody removes or renames until release.
func (s *Service) borrow(ctx context.Context, name, why string) (r Record, release func(), err error) {
	unlock, err := s.ops.Lock(ctx, name)
	if err != nil {
		return r, nil, err
	}
	defer unlock()
	if r, err = s.find("get", name); err != nil {
		return r, nil, err
	}
	s.mu.Lock()
	s.holds[name] = append(s.holds[name], why)
	s.mu.Unlock()
	return r, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		held := s.holds[name]
		for i, h := range held {
			if h == why {
				held = append(held[:i:i], held[i+1:]...)
				break
			}
		}
		if s.holds[name] = held; len(held) == 0 {
			delete(s.holds, name)
		}
	}, nil
}

// use opens the content of a volume until done, whatever driver has it.
func (s *Service) use(ctx context.Context, r Record) (content *os.File, done func(), err error) {
	user := idgen.New() // as if it were a container
	path, err := s.Mount(ctx, r.Name, user)
	if err != nil {
		return nil, nil, err
	}
	unmount := func() {
		if err := s.Unmount(context.WithoutCancel(ctx), r.Name, user); err != nil {
			s.log.Warn("a volume that was copied stays mounted", "volume", r.Name, "err", err)
		}
	}
	if content, err = openDirectory(path); err != nil {
		unmount()
		return nil, nil, err
	}
	return content, func() { content.Close(); unmount() }, nil
}
