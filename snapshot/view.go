package snapshot

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
)

// View is a tree to read: a container's root, or what an image's layers make.
// It is a mount that no path leads to, so that nothing leads out of it but its
// absolute links, which the reader must resolve inside: openat2(2). It may be
// hostile, and a running container's changes while it is read.
type View struct {
	mount int
	root  *os.File
}

// Root is the root directory, open for reading until Close.
func (v *View) Root() *os.File { return v.root }

// Close lets the tree go.
func (v *View) Close() error {
	return errors.Join(v.root.Close(), os.NewSyscallError("close", unix.Close(v.mount)))
}

// View opens the root of a container, whether it runs or not, without what is
// mounted in it.
func (s *Store) View(id string) (*View, error) {
	m, err := s.Mount(id)
	if err != nil {
		return nil, err
	}
	return newView(m)
}

// LayerView opens what the layers of the chain make ("" is an empty tree).
// Whoever holds the view must see to it that no Sweep takes the layers.
func (s *Store) LayerView(chain digest.Digest) (*View, error) {
	m, err := s.ReadOnly(chain)
	if err != nil {
		return nil, err
	}
	return newView(m)
}

func newView(m Mount) (*View, error) {
	const attr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME
	var mount int
	var err error
	if m.Dir != "" {
		mount, err = overlayfs.Bind(m.Dir, attr)
	} else {
		mount, err = overlayfs.Mount(overlayfs.Overlay{Lower: slices.Clone(m.Trees()), Shared: true}, attr)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "cannot look at the files: %w", err)
	}
	root, err := openDir(mount, ".")
	if err != nil {
		unix.Close(mount)
		return nil, err
	}
	return &View{mount, root}, nil
}
