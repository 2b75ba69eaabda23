package record

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

	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/aside"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/keylock"
	"github.com/tarehq/tare/internal/spread"
)

// Store holds the records in memory and on disk. Reads take copies under a
// lock that is never held over I/O.
type Store struct {
	dir     string // <data-root>/containers
	log     *slog.Logger
	damaged map[string]bool // IDs of records that cannot be read; set by Open

	mu    sync.RWMutex
	byID  map[string]*Record
	names map[string]string // name -> id

	files keylock.Locks[string] // one writer of a container's state.json
}

// Path is where a container's files lie, or one of them.
func (s *Store) Path(id string, file ...string) string {
	return filepath.Join(append([]string{s.dir, id}, file...)...)
}

// Open reads every record below dir and finishes what a crash left
// undone: half-made and half-removed containers go.
func Open(dir string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log, damaged: map[string]bool{}, byID: map[string]*Record{}, names: map[string]string{}}
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return nil, err
	}
	spread.Children(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), aside.Suffix) {
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

// Damaged tells whether there is a container of the ID whose record cannot be read.
func (s *Store) Damaged(id string) bool { return s.damaged[id] }

// discard deletes a directory that belongs to no container. What cannot be
// deleted, such as a file that a container made immutable, stays.
func (s *Store) discard(name string) {
	if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
		s.log.Error("what is left of a removed container cannot be deleted", "dir", filepath.Join(s.dir, name), "err", err)
	}
}

func (s *Store) read(id string) (*Record, error) {
	data, err := os.ReadFile(s.Path(id, "record.json"))
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
	if data, err = os.ReadFile(s.Path(id, "state.json")); err == nil {
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

// Reserve takes a name for an ID, so that two creates cannot both have it.
func (s *Store) Reserve(name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, taken := s.names[name]; taken {
		return fault.New(fault.Conflict, "Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, other)
	}
	s.names[name] = id
	return nil
}

// Claim reserves the wanted name, or a made-up one that is free.
func (s *Store) Claim(r *Record) error {
	if r.Name != "" {
		return s.Reserve(r.Name, r.ID)
	}
	for try := 0; ; try++ {
		name := randomName(try)
		err := s.Reserve(name, r.ID)
		if err == nil {
			r.Name = name
			return nil
		}
		if !errors.Is(err, fault.Conflict) || try > 20 {
			return err
		}
	}
}

// Unreserve frees a name that its container will not have.
func (s *Store) Unreserve(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetNameLocked(name, id)
}

// Add writes a new record and makes it visible. Its directory exists. The
// record survives power loss when Add returns, unless the container is one
// that removes itself: nothing of that one outlives its run.
func (s *Store) Add(r *Record) error {
	data, err := json.Marshal(&r.Spec)
	if err != nil {
		return err
	}
	if r.AutoRemove() {
		err = atomicfile.Write(s.Path(r.ID, "record.json"), data, 0o600)
	} else if err = atomicfile.WriteSync(s.Path(r.ID, "record.json"), data, 0o600); err == nil {
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

// Update changes a container's progress under the lock and writes it. It
// refuses a change of state that the transition table does not have.
func (s *Store) Update(id string, change func(*Progress) error) (Record, error) {
	changed, err := s.Change(id, change)
	if err != nil {
		return changed, err
	}
	return changed, s.Flush(id)
}

// Note is Update for what has happened or has to: memory has it, and that it
// could not be written, as on a full disk, is only logged.
func (s *Store) Note(id string, change func(*Progress) error) (Record, error) {
	changed, err := s.Change(id, change)
	if err != nil {
		return changed, err
	}
	s.flushOrLog(id)
	return changed, nil
}

func (s *Store) flushOrLog(id string) {
	if err := s.Flush(id); err != nil {
		s.log.Error("a container's state cannot be written", "container", id, "err", err)
	}
}

// Agree is Note for what is mostly so already: nothing is written then.
func (s *Store) Agree(id string, change func(*Progress) error) (Record, error) {
	var was Progress
	changed, err := s.Change(id, func(p *Progress) error { was = *p; return change(p) })
	if err != nil {
		return changed, err
	}
	before, err1 := json.Marshal(&was)
	after, err2 := json.Marshal(&changed.Progress)
	if err1 == nil && err2 == nil && bytes.Equal(before, after) {
		return changed, nil
	}
	s.flushOrLog(id)
	return changed, nil
}

// Change is Update in memory alone: what it changes is written by the next Flush, or
// lies elsewhere too.
func (s *Store) Change(id string, change func(*Progress) error) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.byID[id]
	if !ok {
		return Record{}, NoSuch(id)
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

// Flush writes the newest progress of a container. Whoever comes later writes
// what is newest then, so no write undoes a later one. What a restart policy
// goes by survives power loss: that the container ran, and that it was stopped.
func (s *Store) Flush(id string) error {
	unlock, err := s.files.Lock(context.Background(), id)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.RLock()
	r, ok := s.byID[id]
	s.mu.RUnlock()
	if !ok || r.AutoRemove() { // gone, or without a life to remember
		return nil
	}
	data, err := json.Marshal(&r.Progress)
	if err != nil {
		return err
	}
	if !r.HostConfig.RestartPolicy.IsNone() && (r.State.Up() || r.ManuallyStopped) {
		return atomicfile.WriteSync(s.Path(id, "state.json"), data, 0o600)
	}
	return atomicfile.Write(s.Path(id, "state.json"), data, 0o600)
}

// Amend changes a container's record for good: memory has the new one when it
// survives power loss, and its old name is free then. The caller holds the
// container's operation lock, has reserved a new name, and changes nothing of
// what the record's pointers lead to.
func (s *Store) Amend(id string, change func(*Spec) error) (Record, error) {
	unlock, err := s.files.Lock(context.Background(), id)
	if err != nil {
		return Record{}, err
	}
	defer unlock()
	s.mu.RLock()
	r, ok := s.byID[id]
	s.mu.RUnlock()
	if !ok {
		return Record{}, NoSuch(id)
	}
	spec := r.Spec
	if err := change(&spec); err != nil {
		return Record{}, err
	}
	data, err := json.Marshal(&spec)
	if err != nil {
		return Record{}, err
	}
	if err := atomicfile.WriteSync(s.Path(id, "record.json"), data, 0o600); err != nil {
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
func (s *Store) forgetNameLocked(name, id string) {
	if s.names[name] == id {
		delete(s.names, name)
	}
}

// Remove takes a container's directory out of the way and forgets the record;
// the directory's new path is returned. Who writes the state sees both or neither.
func (s *Store) Remove(id string) (rest string, err error) {
	unlock, err := s.files.Lock(context.Background(), id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if rest, err = aside.Move(s.Path(id)); err != nil {
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

// NoSuch is the refusal of what is no container.
func NoSuch(nameOrID string) error {
	return fault.New(fault.NotFound, "No such container: %s", nameOrID)
}

// Find resolves a full ID, a name, or an unambiguous prefix of an ID, in
// Docker's order.
func (s *Store) Find(nameOrID string) (Record, error) {
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
		return Record{}, NoSuch(nameOrID)
	}
	return *found, nil
}

// Has tells whether there is a container of the ID.
func (s *Store) Has(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id] != nil
}

// All returns copies of all records, newest first.
func (s *Store) All() []Record {
	sorted := s.Sorted()
	list := make([]Record, len(sorted))
	for i, r := range sorted {
		list[i] = *r
	}
	return list
}

// Sorted returns all records, newest first. They are replaced and never changed,
// and nobody who gets them here changes them.
func (s *Store) Sorted() []*Record {
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

// NetworkOwner is the container whose network r is in: its own, or that of
// the one it joins, which may itself have joined another's. There are no rings,
// as a container can only join one that was made before it.
func (s *Store) NetworkOwner(r Record) (Record, error) {
	for r.HostConfig.NetworkMode.IsContainer() {
		other, err := s.Find(r.HostConfig.NetworkMode.ConnectedContainer())
		if err != nil {
			return Record{}, err
		}
		r = other
	}
	return r, nil
}

// HostFiles puts the paths of a container's files into in.
func (s *Store) HostFiles(id string, in *spec.Input) {
	dir := s.Path(id) // on disk: a container may write them, and the exec root is memory
	in.Hosts, in.Hostname, in.ResolvConf = filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname"), filepath.Join(dir, "resolv.conf")
}
