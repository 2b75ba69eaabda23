package supervise

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
)

// CloneBelow makes a detached mount of a part of a tree that is mounted somewhere.
// The part is looked for below a descriptor of the tree: no link leads out of it,
// whoever changes it meanwhile.
func CloneBelow(tree int, subpath string) (*os.File, error) {
	fd, err := openat.Open(tree, subpath, unix.O_PATH, openat.Beneath)
	if errors.Is(err, unix.EXDEV) {
		return nil, fault.New(fault.Invalid, "cannot access path %s: a link in it leads out of the volume", subpath)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot access path %s: %w", subpath, err)
	}
	defer unix.Close(fd)
	part, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(part), subpath), nil
}
