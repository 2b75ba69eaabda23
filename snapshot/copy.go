package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/treecopy"
)

// copyTree makes the directory to, which is not there, a copy of from, which
// nobody changes meanwhile.
func copyTree(to, from string) error {
	src, err := openDir(unix.AT_FDCWD, from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	dst, err := openDir(unix.AT_FDCWD, to)
	if err != nil {
		return err
	}
	defer dst.Close()
	err = treecopy.Copy(context.Background(), dst, src)
	if errors.Is(err, treecopy.ErrTooDeep) {
		return tooDeep()
	}
	return err
}

// checkPath refuses what no path leads to: an image can hold trees of any depth,
// and each level that is walked takes memory and descriptors.
func checkPath(path string) error {
	if len(path) >= unix.PathMax {
		return tooDeep()
	}
	return nil
}

func tooDeep() error {
	return fault.New(fault.Invalid, "the image has a path of more than %d bytes: with this storage driver it cannot be used", unix.PathMax)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func setTimes(dir int, name string, access, modify unix.Timespec) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{access, modify}, unix.AT_SYMLINK_NOFOLLOW)
}
