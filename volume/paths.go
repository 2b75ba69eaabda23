package volume

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/idgen"
)

const (
	recordName = "volume.json"
	dataName   = "_data"
	copyPrefix = "copy-"
	copiedName = "copied"
	usePrefix  = "use-"
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// dir is what belongs to a volume.
func (s *Service) dir(name string) string { return filepath.Join(s.root, name) }

// data is where the content of a local volume lies.
func (s *Service) data(name string) string { return filepath.Join(s.root, name, dataName) }

// Path is where the content of a volume of the local driver lies, Docker's
// Mountpoint.
func (s *Service) Path(name string) string { return s.data(name) }

// fresh is a directory that is not there, for a volume to be made in or deleted
// from.
func (s *Service) fresh(prefix string) string { return filepath.Join(s.root, prefix+idgen.New()[:16]) }

// scratch is a file without a name, where there is as much room as volumes have.
func (s *Service) scratch() (*os.File, error) {
	fd, err := unix.Open(s.root, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "scratch"), nil
	}
	name := s.fresh(newPrefix) // of a file system without such files
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = os.Remove(name)
	}
	return f, err
}

// In a volume that is a mount, or a plugin's, what is being copied to it has to lie
// in itself, for it to be moved: under names that nobody else has.
const (
	innerCopyPrefix = ".tare-copy-"
	innerCopiedName = ".tare-copied"
)
