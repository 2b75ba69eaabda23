package snapshot

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/internal/atomicfile"
)

// Pin says which chains stay although neither an image nor a container has
// them, such as those of a build cache. It takes the place of what was said
// before, and holds across restarts.
func (s *Store) Pin(chains []digest.Digest) error {
	s.pinning.Lock()
	defer s.pinning.Unlock()
	var text bytes.Buffer
	for _, chain := range chains {
		text.WriteString(chain.String() + "\n")
	}
	if err := atomicfile.Write(s.path("pinned"), text.Bytes(), 0o600); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinned = slices.Clone(chains)
	return nil
}

// readPinned learns them again. A list that is damaged costs a cache, and
// nothing else.
func (s *Store) readPinned() error {
	data, err := os.ReadFile(s.path("pinned"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range bytes.Lines(data) {
		if d, err := digest.Parse(string(bytes.TrimSpace(line))); err == nil {
			s.pinned = append(s.pinned, d)
		}
	}
	return nil
}
