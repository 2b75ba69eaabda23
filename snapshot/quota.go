package snapshot

import (
	"path/filepath"

	"github.com/tarehq/tare/fault"
)

// limiter is a driver, or what it makes trees by, that can bound what a
// container writes.
type limiter interface {
	limit(tree string, bytes uint64) error
}

// CanLimit is nil where Limit is supported, and otherwise says in Docker's words
// why it is not.
func (s *Store) CanLimit() error {
	if s.limiter() != nil {
		return nil
	}
	if s.name == Overlay && fileSystem(s.root) == "xfs" {
		return fault.New(fault.NotImplemented, "--storage-opt is supported with the storage driver btrfs only: the project quotas of xfs are not used yet")
	}
	return fault.New(fault.Invalid, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
}

func (s *Store) limiter() limiter {
	if w, ok := s.driver.(whole); ok {
		l, _ := w.trees.(limiter)
		return l
	}
	return nil
}

// Limit bounds what the container itself may write, in bytes: not what its image
// brought. It holds from now on, whatever the daemon does.
func (s *Store) Limit(id string, bytes uint64) error {
	if err := s.CanLimit(); err != nil {
		return err
	}
	return s.limiter().limit(filepath.Join(s.path("active", id), "fs"), bytes)
}
