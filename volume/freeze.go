package volume

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// frozenPrefix begins the names of files that list the containers which stand still
// for a copy: a daemon that dies then must not leave them so.
const frozenPrefix = ".frozen-"

// Freezer makes containers stand still, and go on. container.Service is it. To
// pause one that does not run, or stands still already, is fault.Conflict.
type Freezer interface {
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error
}

// SetFreezer tells the service who stops the users of volumes, and lets those go on
// that a daemon stopped which died.
func (s *Service) SetFreezer(ctx context.Context, f Freezer) error {
	s.freezer.Store(&f)
	files, err := filepath.Glob(filepath.Join(s.root, frozenPrefix+"*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		var ids []string
		if data, err := os.ReadFile(file); err != nil || json.Unmarshal(data, &ids) != nil {
			continue // it was being written: nobody stands still yet
		}
		s.thaw(ctx, f, ids, file)
	}
	return nil
}

// freeze stops the containers that use the volume and run, until thaw.
func (s *Service) freeze(ctx context.Context, name string, asked bool) (thaw func(), err error) {
	ask := s.freezer.Load()
	ids := s.containersOf(name)
	if !asked || ask == nil || len(ids) == 0 {
		return func() {}, nil
	}
	f, file := *ask, s.fresh(frozenPrefix)
	var frozen []string
	var unlocks []func()
	thaw = func() {
		s.thaw(context.WithoutCancel(ctx), f, frozen, file)
		for _, unlock := range unlocks {
			unlock()
		}
	}
	slices.Sort(ids) // in one order for all who take several
	for _, id := range ids {
		// Whose copy is made first would let it go on for the others, too.
		unlock, err := s.freezes.Lock(ctx, id)
		if err == nil {
			unlocks = append(unlocks, unlock)
			frozen, err = pause(ctx, f, id, frozen, file)
		}
		if err != nil {
			thaw()
			return nil, err
		}
	}
	return thaw, nil
}

// pause stops one more container. The file lists it before that, but not one that
// the user has stopped: it is not ours to let go on.
func pause(ctx context.Context, f Freezer, id string, frozen []string, file string) ([]string, error) {
	more := append(slices.Clip(frozen), id)
	if err := writeFrozen(file, more); err != nil {
		return frozen, err
	}
	err := f.Pause(ctx, id)
	if err == nil {
		return more, nil
	}
	if errors.Is(err, fault.Conflict) || errors.Is(err, fault.NotFound) { // it does not run
		err = nil
	}
	return frozen, errors.Join(err, writeFrozen(file, frozen))
}

func writeFrozen(file string, ids []string) error {
	data, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	return atomicfile.Write(file, data, 0o600)
}

func (s *Service) thaw(ctx context.Context, f Freezer, ids []string, file string) {
	for _, id := range ids {
		if err := f.Unpause(ctx, id); err != nil {
			s.log.Warn("a container that stood still for a copy of its volume does not go on", "container", id, "err", err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the list of containers that stood still stays", "err", err)
	}
}

// containersOf are the users of a volume without those who hold it.
func (s *Service) containersOf(name string) []string {
	ask := s.users.Load()
	if ask == nil {
		return nil
	}
	return (*ask)()[name]
}
