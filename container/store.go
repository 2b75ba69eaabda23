package container

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/internal/spread"
)

const removingSuffix = "-removing"

// store holds the records in memory and on disk. Reads take copies under a
// lock that is never held over I/O.
type store struct {
	dir     string // <data-root>/containers
	log     *slog.Logger
	damaged map[string]bool // IDs of records that cannot be read; set by openStore

	mu    sync.RWMutex
	byID  map[string]*Record
	names map[string]string // name -> id

	files keylock.Locks[string] // one writer of a container's state.json
}

func (s *store) path(id string, file ...string) string {
	return filepath.Join(append([]string{s.dir, id}, file...)...)
}

// openStore reads every record below dir and finishes what a crash left
// undone: half-made and half-removed containers go.
func openStore(dir string, log *slog.Logger) (*store, error) {
	s := &store{dir: dir, log: log, damaged: map[string]bool{}, byID: map[string]*Record{}, names: map[string]string{}}
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return nil, err
	}
	spread.Children(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), removingSuffix) {
			s.discard(e.Name())
			continue
		}
		r, err := s.read(e.Name())
		if errors.Is(err, fs.ErrNotExist) { // create never got to acknowledge it
			s.discard(e.Name())
			continue
		}
		if err != nil {
			log.Error("a container's record cannot be read; it is left alone", "id", e.Name(), "err", err)
			s.damaged[e.Name()] = true
			continue
		}
		s.byID[r.ID], s.names[r.Name] = r, r.ID
	}
	return s, nil
}

// discard deletes a directory that belongs to no container. What cannot be
// deleted, such as a file that a container made immutable, stays.
func (s *store) discard(name string) {
	if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
		s.log.Error("what is left of a removed container cannot be deleted", "dir", filepath.Join(s.dir, name), "err", err)
	}
}

func (s *store) read(id string) (*Record, error) {
	data, err := os.ReadFile(s.path(id, "record.json"))
	if err != nil {
		return nil, err
	}
	if len(bytes.Trim(data, "\x00")) == 0 {
		// Power was lost before it reached the disk. Nobody was told of it, or
		// it was to go with its run.
		return nil, fs.ErrNotExist
	}
	r := &Record{Progress: Progress{State: Created}}
	if err := json.Unmarshal(data, &r.Spec); err != nil {
		return nil, fmt.Errorf("record.json: %w", err)
	}
	if data, err = os.ReadFile(s.path(id, "state.json")); err == nil {
		var p Progress
		// A torn state means power loss in the middle of its life: it has ended,
		// how is not known, and its restart policy decides what follows.
		if json.Unmarshal(data, &p) == nil && p.State != "" {
			r.Progress = p
		} else {
			r.Progress = Progress{State: Running}
		}
	}
	return r, nil
}

// reserve takes a name for an ID, so that two creates cannot both have it.
func (s *store) reserve(name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, taken := s.names[name]; taken {
		return fault.New(fault.Conflict, "Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, other)
	}
	s.names[name] = id
	return nil
}

// claim reserves the wanted name, or a made-up one that is free.
func (s *store) claim(r *Record) error {
	if r.Name != "" {
		return s.reserve(r.Name, r.ID)
	}
	for try := 0; ; try++ {
		name := randomName(try)
		err := s.reserve(name, r.ID)
		if err == nil {
			r.Name = name
			return nil
		}
		if !errors.Is(err, fault.Conflict) || try > 20 {
			return err
		}
	}
}

func (s *store) unreserve(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetNameLocked(name, id)
}

// add writes a new record and makes it visible. Its directory exists. The
// record survives power loss when add returns, unless the container is one
// that removes itself: nothing of that one outlives its run.
func (s *store) add(r *Record) error {
	data, err := json.Marshal(&r.Spec)
	if err != nil {
		return err
	}
	if r.autoRemove() {
		err = atomicfile.Write(s.path(r.ID, "record.json"), data, 0o600)
	} else if err = atomicfile.WriteSync(s.path(r.ID, "record.json"), data, 0o600); err == nil {
		err = atomicfile.SyncDir(s.dir)
	}
	if err != nil {
		return err
	}
	copied := *r
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[r.ID] = &copied
	return nil
}

// update changes a container's progress under the lock and writes it. It
// refuses a change of state that the transition table does not have.
func (s *store) update(id string, change func(*Progress) error) (Record, error) {
	changed, err := s.change(id, change)
	if err != nil {
		return changed, err
	}
	return changed, s.flush(id)
}

// note is update for what has happened or has to: memory has it, and that it
// could not be written, as on a full disk, is only logged.
func (s *store) note(id string, change func(*Progress) error) (Record, error) {
	changed, err := s.change(id, change)
	if err != nil {
		return changed, err
	}
	s.flushOrLog(id)
	return changed, nil
}

func (s *store) flushOrLog(id string) {
	if err := s.flush(id); err != nil {
		s.log.Error("a container's state cannot be written", "container", id, "err", err)
	}
}

// agree is note for what is mostly so already: nothing is written then.
func (s *store) agree(id string, change func(*Progress) error) (Record, error) {
	s.mu.RLock()
	was := s.byID[id]
	s.mu.RUnlock()
	changed, err := s.change(id, change)
	if err != nil {
		return changed, err
	}
	before, err1 := json.Marshal(&was.Progress)
	after, err2 := json.Marshal(&changed.Progress)
	if err1 == nil && err2 == nil && bytes.Equal(before, after) {
		return changed, nil
	}
	s.flushOrLog(id)
	return changed, nil
}

func (s *store) change(id string, change func(*Progress) error) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.byID[id]
	if !ok {
		return Record{}, noSuch(id)
	}
	changed := *r
	if err := change(&changed.Progress); err != nil {
		return Record{}, err
	}
	if err := r.State.next(changed.State); err != nil {
		return Record{}, err
	}
	s.byID[id] = &changed
	return changed, nil
}

// flush writes the newest progress of a container. Whoever comes later writes
// what is newest then, so no write undoes a later one. What a restart policy
// goes by survives power loss: that the container ran, and that it was stopped.
func (s *store) flush(id string) error {
	unlock, err := s.files.Lock(context.Background(), id)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.RLock()
	r, ok := s.byID[id]
	s.mu.RUnlock()
	if !ok || r.autoRemove() { // gone, or without a life to remember
		return nil
	}
	data, err := json.Marshal(&r.Progress)
	if err != nil {
		return err
	}
	if !r.HostConfig.RestartPolicy.IsNone() && (r.State.Up() || r.ManuallyStopped) {
		return atomicfile.WriteSync(s.path(id, "state.json"), data, 0o600)
	}
	return atomicfile.Write(s.path(id, "state.json"), data, 0o600)
}

// amend changes a container's record for good: memory has the new one when it
// survives power loss, and its old name is free then. The caller holds the
// container's operation lock, has reserved a new name, and changes nothing of
// what the record's pointers lead to.
func (s *store) amend(id string, change func(*Spec) error) (Record, error) {
	unlock, err := s.files.Lock(context.Background(), id)
	if err != nil {
		return Record{}, err
	}
	defer unlock()
	s.mu.RLock()
	r, ok := s.byID[id]
	s.mu.RUnlock()
	if !ok {
		return Record{}, noSuch(id)
	}
	spec := r.Spec
	if err := change(&spec); err != nil {
		return Record{}, err
	}
	data, err := json.Marshal(&spec)
	if err != nil {
		return Record{}, err
	}
	if err := atomicfile.WriteSync(s.path(id, "record.json"), data, 0o600); err != nil {
		return Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := *s.byID[id] // what happened to it meanwhile
	if changed.Name != spec.Name {
		s.forgetNameLocked(changed.Name, id)
	}
	changed.Spec = spec
	s.byID[id] = &changed
	return changed, nil
}

// forgetNameLocked frees a container's name, if it is that one's.
func (s *store) forgetNameLocked(name, id string) {
	if s.names[name] == id {
		delete(s.names, name)
	}
}

// remove takes a container's directory out of the way and forgets the record;
// the directory's new path is returned. Who writes the state sees both or neither.
func (s *store) remove(id string) (rest string, err error) {
	unlock, err := s.files.Lock(context.Background(), id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if rest, err = moveAway(s.path(id)); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.byID[id]; ok {
		s.forgetNameLocked(r.Name, id)
		delete(s.byID, id)
	}
	return rest, nil
}

func noSuch(nameOrID string) error {
	return fault.New(fault.NotFound, "No such container: %s", nameOrID)
}

// find resolves a full ID, a name, or an unambiguous prefix of an ID, in
// Docker's order.
func (s *store) find(nameOrID string) (Record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if nameOrID == "" {
		return Record{}, fault.New(fault.Invalid, `invalid name or ID supplied: ""`)
	}
	if r, ok := s.byID[nameOrID]; ok {
		return *r, nil
	}
	if r, ok := s.byID[s.names[strings.TrimPrefix(nameOrID, "/")]]; ok {
		return *r, nil
	}
	var found *Record
	for id, r := range s.byID {
		if strings.HasPrefix(id, nameOrID) {
			if found != nil {
				return Record{}, fault.New(fault.Invalid, "multiple IDs found with provided prefix: %s", nameOrID)
			}
			found = r
		}
	}
	if found == nil {
		return Record{}, noSuch(nameOrID)
	}
	return *found, nil
}

// has tells whether there is a container of the ID.
func (s *store) has(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id] != nil
}

// all returns copies of all records, newest first.
func (s *store) all() []Record {
	sorted := s.sorted()
	list := make([]Record, len(sorted))
	for i, r := range sorted {
		list[i] = *r
	}
	return list
}

// sorted returns all records, newest first. They are replaced and never changed,
// and nobody who gets them here changes them.
func (s *store) sorted() []*Record {
	s.mu.RLock()
	list := make([]*Record, 0, len(s.byID))
	for _, r := range s.byID {
		list = append(list, r)
	}
	s.mu.RUnlock()
	slices.SortFunc(list, func(a, b *Record) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
	return list
}
