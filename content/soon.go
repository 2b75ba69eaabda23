package content

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/bootid"
)

// soonFile is there while index.json is behind: the index as it will be once all
// that it names survives power loss. It holds until the end of the boot that wrote
// it. After power loss the names are those of index.json, and whole.
const soonFile = "index.soon.json"

// soon is what soonFile holds.
type soon struct {
	Boot  string
	Index json.RawMessage
}

// pending counts changes of the index.
type pending struct {
	now, durable uint64       // of the index in memory, and of the one in index.json
	harden       func() error // makes all that is named durable
}

// SetDurable says how all that is written so far is made to survive power loss,
// and takes up what an earlier process left of UpdateSoon. It is called once,
// before the first Update.
func (s *Store) SetDurable(harden func() error) error {
	s.pending.harden = harden
	data, err := os.ReadFile(s.path(soonFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	boot, err := bootid.Now()
	if err != nil {
		return err
	}
	var left soon
	if json.Unmarshal(data, &left) != nil || left.Boot != boot {
		return os.Remove(s.path(soonFile)) // its content may be lost
	}
	ix, err := parseIndex(left.Index)
	if err != nil {
		return err
	}
	s.index.Store(ix)
	s.pending.now++
	return s.Harden()
}

// UpdateSoon is Update that does not wait: the new index is there for all, and for
// the next process, and survives power loss when Harden has returned.
func (s *Store) UpdateSoon(change func(*Index) (*Index, error)) error {
	s.names.Lock()
	defer s.names.Unlock()
	return s.updateSoonLocked(change)
}

func (s *Store) updateSoonLocked(change func(*Index) (*Index, error)) error {
	old := s.index.Load()
	next, err := change(old)
	if err != nil || next == old {
		return err
	}
	boot, err := bootid.Now()
	if err != nil {
		return err
	}
	ix, err := encodeIndex(next)
	if err != nil {
		return err
	}
	data, err := json.Marshal(soon{boot, ix})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.path(soonFile), data, 0o644); err != nil {
		return fmt.Errorf("cannot write the index of the image store: %w", err)
	}
	s.index.Store(next)
	s.pending.now++
	return nil
}

// Harden returns when all names survive power loss.
func (s *Store) Harden() error {
	for {
		s.names.Lock()
		now, ix, done := s.pending.now, s.index.Load(), s.pending.now == s.pending.durable
		s.names.Unlock()
		if done {
			return nil
		}
		if err := s.pending.harden(); err != nil {
			return err
		}
		if err := s.hardened(now, ix); err != nil {
			return err
		}
	}
}

// hardened notes that what the index names survives power loss.
func (s *Store) hardened(now uint64, ix *Index) error {
	s.names.Lock()
	defer s.names.Unlock()
	if s.pending.durable >= now { // somebody else was faster
		return nil
	}
	data, err := encodeIndex(ix)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteSync(s.path(ocispec.ImageIndexFile), data, 0o644); err != nil {
		return fmt.Errorf("cannot write the index of the image store: %w", err)
	}
	if s.pending.durable = now; s.pending.now > now {
		return nil
	}
	return os.Remove(s.path(soonFile))
}
