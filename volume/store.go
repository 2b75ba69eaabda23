package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/quota"
	"github.com/tarehq/tare/internal/treecopy"
)

// load reads the volumes, and takes away what a crash left of others.
func (s *Service) load() error {
	if err := os.MkdirAll(s.root, 0o711); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, newPrefix), strings.HasPrefix(name, gonePrefix):
			s.discard(filepath.Join(s.root, name))
			continue
		case strings.HasPrefix(name, "."), !e.IsDir():
			continue
		}
		torn := s.torn(s.dir(name))
		r, err := readRecord(s.dir(name))
		switch {
		case torn && err != nil: // nobody can have used it
			s.discard(s.dir(name))
			continue
		case torn:
			s.log.Error("the power was lost just after this volume was made as a copy, and its content may be incomplete: make it again, or remove the file fresh beside its content", "volume", name)
		}
		if err == nil && r.Was == name {
			r, err = s.unrename(r)
		}
		if err == nil && r.Name != name {
			err = fmt.Errorf("it is that of %q", r.Name)
		}
		if err != nil {
			s.log.Error("the record of a volume cannot be read; it is left alone", "volume", name, "err", err)
			continue
		}
		if r.Driver == Local {
			if err := s.heal(&r); err != nil {
				s.log.Error("a volume that was being filled cannot be finished", "volume", name, "err", err)
			}
		}
		s.volumes[name] = r
	}
	return nil
}

// heal finishes what was being copied to a volume when the daemon was killed, and
// makes data anew that power loss took: nobody was told of it, or they would have
// been synced. In one that is a mount it is done when it is used next.
func (s *Service) heal(r *Record) error {
	if err := os.Mkdir(s.data(r.Name), 0o755); !errors.Is(err, fs.ErrExist) {
		return err
	}
	if needsMount(r) {
		return nil
	}
	return s.population(r, s.data(r.Name)).recover()
}

func readRecord(dir string) (Record, error) {
	var r Record
	data, err := os.ReadFile(filepath.Join(dir, recordName))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

// stage makes the directory of a new volume under no name. When durable it
// survives power loss from publish on.
func (s *Service) stage(r Record, durable bool) (dir string, err error) {
	return s.stageWith(r, durable, func(at *os.File) error {
		if r.Driver != Local {
			return nil
		}
		data, err := treecopy.Make(at, dataName)
		if err != nil {
			return err
		}
		defer data.Close()
		if err := data.Chmod(0o755); err != nil {
			return err
		}
		return bound(data, r)
	})
}

// stageWith is stage with a volume's content, made in the open directory.
func (s *Service) stageWith(r Record, durable bool, fill func(at *os.File) error) (dir string, err error) {
	dir = s.fresh(newPrefix)
	if err := os.Mkdir(dir, 0o701); err != nil {
		return "", err
	}
	at, err := os.Open(dir)
	if err == nil {
		err = fill(at)
		at.Close()
	}
	if err == nil {
		err = writeRecord(dir, r, durable)
	}
	if err != nil {
		err = errors.Join(err, s.scrap(dir))
	}
	return dir, err
}

// scrap deletes the directory of a volume that has no name, or not any more.
func (s *Service) scrap(dir string) error {
	at, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	if data, err := os.Open(filepath.Join(dir, dataName)); err == nil {
		err = quota.Clear(data)
		data.Close()
		if err != nil {
			s.log.Warn("the project of a volume stays bounded", "dir", dir, "err", err)
		}
	}
	if err := treecopy.Remove(at, dataName); err != nil {
		return err
	}
	return deltree.Remove(dir)
}

func writeRecord(dir string, r Record, durable bool) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if durable {
		return atomicfile.WriteSync(filepath.Join(dir, recordName), data, 0o600)
	}
	return atomicfile.Write(filepath.Join(dir, recordName), data, 0o600)
}

// publish gives a staged volume its name. The caller holds the name's lock; a
// name that is taken is fault.Conflict.
func (s *Service) publish(dir string, r Record, durable bool) error {
	if _, taken := s.lookup(r.Name); taken {
		return fault.New(fault.Conflict, "volume %s exists already", r.Name)
	}
	err := os.Rename(dir, s.dir(r.Name))
	if errors.Is(err, fs.ErrExist) { // something without a record
		return fault.New(fault.Conflict, "%s is in the way and is no volume of this engine: move it away", s.dir(r.Name))
	}
	if err != nil {
		return err
	}
	if durable {
		if err := atomicfile.SyncDir(s.root); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.volumes[r.Name] = r
	s.mu.Unlock()
	return nil
}

// withdraw takes a volume away. The caller holds the name's lock and has seen that
// nobody uses it. Its data vanish in the background.
func (s *Service) withdraw(name string) error {
	gone := s.fresh(gonePrefix)
	if err := os.Rename(s.dir(name), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	delete(s.volumes, name)
	s.mu.Unlock()
	s.background.Go(func() { s.discard(gone) })
	return nil
}

// discard deletes what belongs to no volume. What cannot be deleted stays for
// the next daemon.
func (s *Service) discard(dir string) {
	if err := s.scrap(dir); err != nil {
		s.log.Error("what is left of a volume cannot be deleted", "dir", dir, "err", err)
	}
}

// lookup finds a record.
func (s *Service) lookup(name string) (Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.volumes[name]
	return r, ok
}

// find is lookup for who needs it; op is the first word of Docker's sentence.
func (s *Service) find(op, name string) (Record, error) {
	r, ok := s.lookup(name)
	if !ok {
		return r, fault.New(fault.NotFound, "%s %s: no such volume", op, name)
	}
	return r, nil
}

// all are the records in no order.
func (s *Service) all() []Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Record, 0, len(s.volumes))
	for _, r := range s.volumes {
		list = append(list, r)
	}
	return list
}
