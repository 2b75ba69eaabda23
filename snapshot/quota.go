package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/quota"
)

// limiter is a driver, or what it makes trees by, that can bound what a
// container writes: in its directory, which nobody has used.
type limiter interface {
	canLimit() error
	limit(dir string, bytes uint64) error
}

// CanLimit is nil where Limit is supported, and otherwise says in Docker's words
// why it is not.
func (s *Store) CanLimit() error {
	l := s.limiter()
	if l == nil {
		return errNoLimits
	}
	return l.canLimit()
}

var errNoLimits = fault.New(fault.Invalid, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option")

func (s *Store) limiter() limiter {
	var of any = s.driver
	if w, ok := s.driver.(whole); ok {
		of = w.trees
	}
	l, _ := of.(limiter)
	return l
}

// Limit bounds what the container itself may write, in bytes: not what its image
// brought. It holds from now on, whatever the daemon does.
func (s *Store) Limit(id string, bytes uint64) error {
	if err := s.CanLimit(); err != nil {
		return err
	}
	return s.limiter().limit(s.path("active", id), bytes)
}

// canLimit asks for project quotas, which ext4 has as well as XFS.
func (o *overlay) canLimit() error {
	root, err := os.Open(o.store.root)
	if err != nil {
		return err
	}
	defer root.Close()
	err = quota.Check(root)
	var why quota.Unsupported
	if errors.As(err, &why) {
		return fmt.Errorf("%w: %s", errNoLimits, why)
	}
	return err
}

// limit bounds both directories of the overlay mount, between which it moves
// files: all that comes to lie in them belongs to the project.
func (o *overlay) limit(dir string, bytes uint64) error {
	var dirs []*os.File
	for _, name := range []string{"upper", "work"} {
		d, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer d.Close()
		dirs = append(dirs, d)
	}
	return quota.SetAll(bytes, dirs...)
}

// unlimit frees the project that a container's directory may have.
func unlimit(dir string) error {
	upper, err := os.Open(filepath.Join(dir, "upper"))
	if err != nil {
		return nil // a layer
	}
	defer upper.Close()
	return quota.Clear(upper)
}
