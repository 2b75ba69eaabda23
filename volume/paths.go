package volume

import (
	"path/filepath"

	"github.com/tarehq/tare/internal/idgen"
)

const (
	recordName = "volume.json"
	dataName   = "_data"
	copyPrefix = "copy-"
	copiedName = "copied"
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// dir is what belongs to a volume.
func (s *Service) dir(name string) string { return filepath.Join(s.root, name) }

// data is where the content of a local volume lies.
func (s *Service) data(name string) string { return filepath.Join(s.root, name, dataName) }

// fresh is a directory that is not there, for a volume to be made in or deleted
// from.
func (s *Service) fresh(prefix string) string { return filepath.Join(s.root, prefix+idgen.New()[:16]) }
