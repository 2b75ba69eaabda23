package bucket

import (
	"bytes"
	"io"
	"os"

	"github.com/tarehq/tare/fault"
)

// inMemory is how much of a spool needs no file.
const inMemory = 16 << 10

// spool holds what was received since the last part: little in memory, more in
// a file without a name, so that any number of uploads, however slow, cost no
// memory and no part is sent before it is there.
type spool struct {
	dir    string
	memory []byte
	file   *os.File
	size   int64
}

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && s.size+int64(len(p)) <= inMemory {
		s.memory = append(s.memory, p...)
		s.size += int64(len(p))
		return len(p), nil
	}
	if s.file == nil {
		if err := s.spill(); err != nil {
			return 0, fault.New(fault.Unavailable, "the registry has no room to receive an upload: free some in its spool directory: %w", err)
		}
	}
	n, err := s.file.WriteAt(p, s.size)
	s.size += int64(n)
	if err != nil {
		err = fault.New(fault.Unavailable, "the registry has no room to receive an upload: free some in its spool directory: %w", err)
	}
	return n, err
}

func (s *spool) spill() error {
	f, err := os.CreateTemp(s.dir, "tare-registry-upload-")
	if err != nil {
		return err
	}
	s.file = f
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	_, err = f.WriteAt(s.memory, 0)
	s.memory = nil
	return err
}

// reader reads all of it, as often as wanted.
func (s *spool) reader() io.ReadSeeker {
	if s.file == nil {
		return bytes.NewReader(s.memory)
	}
	return io.NewSectionReader(s.file, 0, s.size)
}

func (s *spool) reset() { s.memory, s.size = s.memory[:0], 0 }

func (s *spool) close() error {
	s.memory, s.size = nil, 0
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}
