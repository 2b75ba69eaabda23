// Package deltree removes trees of files of any depth and width with a few
// descriptors and little memory. os.RemoveAll holds a descriptor for each level
// and so fails in a tree that is deeper than the process may open files, which
// anybody can make who may make directories.
package deltree

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxDepth is how many levels are open at once. What lies deeper is moved up.
const maxDepth = 64

// The flags of files that must not be removed, nor their names when it is a
// directory, ioctl_iflags(2).
const (
	flagImmutable = 0x10
	flagAppend    = 0x20
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// Remove removes what is at path: a file, a symbolic link itself, or a tree. It
// is no error when nothing is there. When something cannot be removed the rest
// goes all the same, and the first reason is returned.
func Remove(path string) error {
	path = filepath.Clean(path)
	up, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(up)
		err = At(up, filepath.Base(path))
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// At is Remove for a name in an open directory, unix.ENOENT when it is not
// there. No symbolic link is followed.
func At(dir int, name string) error {
	err := unlink(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	top, err := unix.Openat(dir, name, dirFlags, 0)
	if err != nil {
		return err
	}
	r := remover{top: top}
	err = r.empty(top, 1)
	if e := unlink(dir, name, unix.AT_REMOVEDIR); err == nil {
		err = e
	}
	return err
}

type remover struct {
	top   int // the tree's own directory
	moved int // directories that were moved up to it
}

// empty removes what the directory holds, and closes it.
func (r *remover) empty(dir, depth int) (first error) {
	d := os.NewFile(uintptr(dir), "")
	defer d.Close()
	for {
		// From the start each time: a directory that changes while it is read
		// need not show all of itself.
		removed, found, err := r.pass(d, depth)
		if !found || removed == 0 {
			return err
		}
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// pass reads the directory once and removes what it can, and tells whether
// something was there.
func (r *remover) pass(d *os.File, depth int) (removed int, found bool, first error) {
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			found = true
			if err := r.remove(int(d.Fd()), name, depth); err == nil {
				removed++
			} else if first == nil {
				first = err
			}
		}
		if err != nil || len(names) == 0 {
			if err != nil && !errors.Is(err, io.EOF) && first == nil {
				first = err
			}
			return removed, found, first
		}
	}
}

func (r *remover) remove(dir int, name string, depth int) error {
	err := unlink(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	if err := unlink(dir, name, unix.AT_REMOVEDIR); !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if depth >= maxDepth {
		return r.moveUp(dir, name)
	}
	fd, err := unix.Openat(dir, name, dirFlags, 0)
	if err != nil {
		return err
	}
	err = r.empty(fd, depth+1)
	if e := unlink(dir, name, unix.AT_REMOVEDIR); err == nil {
		err = e
	}
	return err
}

// moveUp gives a directory a name in the topmost one, whose next pass finds it.
func (r *remover) moveUp(dir int, name string) error {
	for {
		r.moved++
		err := unix.Renameat2(dir, name, r.top, "deep"+strconv.Itoa(r.moved), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}

// unlink is unlinkat(2), also of what chattr(1) has made immutable or has allowed
// only to grow, and in such a directory.
func unlink(dir int, name string, flags int) error {
	err := unix.Unlinkat(dir, name, flags)
	if errors.Is(err, unix.EPERM) && allow(dir, name) {
		err = unix.Unlinkat(dir, name, flags)
	}
	return err
}

// allow takes away the flags of a directory and of a name in it that forbid the
// removal, and tells whether there were any.
func allow(dir int, name string) bool {
	allowed := clearFlags(dir)
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return allowed // to open a device is to act on it
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return allowed
	}
	defer unix.Close(fd)
	return clearFlags(fd) || allowed
}

func clearFlags(fd int) bool {
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(flagImmutable|flagAppend) == 0 {
		return false
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^(flagImmutable|flagAppend)) == nil
}
