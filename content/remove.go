package content

import (
	"errors"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
)

// Forget removes one blob that is named by others and is to be missing from now
// on, as the manifest of a platform that is not wanted. What only it names is for
// Collect. It is no error when the blob is not there. While the store is held the
// blob can still be opened by who found it before; it goes with the last hold,
// unless somebody writes it anew.
func (s *Store) Forget(d digest.Digest) error {
	path, err := s.blobPath(d)
	if err != nil {
		return err
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	for _, node := range []bool{false, true} {
		for _, index := range []bool{false, true} {
			s.nodes.Delete(reading{d, node, index})
		}
	}
	if s.holds > 0 {
		s.forgotten.Store(d, path)
		return nil
	}
	return remove(path)
}

// forgetLocked removes what was to go with the last hold.
func (s *Store) forgetLocked() {
	s.forgotten.Range(func(d, path any) bool {
		// What stays is the manifest of a platform, which can be removed again.
		_ = remove(path.(string))
		s.forgotten.Delete(d)
		return true
	})
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
