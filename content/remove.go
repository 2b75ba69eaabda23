package content

import (
	"errors"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
)

// Forget removes one blob that is named by others and is to be missing from now
// on, as the manifest of a platform that is not wanted. What only it names is for
// Collect. It is no error when the blob is not there.
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
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
