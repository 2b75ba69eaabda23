package ocirun

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// copyUp fills a tmpfs with what the directory below it holds.
func (a *attempt) copyUp(from, to value, name string) error {
	var fds [2]int
	for i, v := range [...]value{from, to} {
		fd, err := a.take(v)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	if err := copyContents(fds[0], fds[1], "."); err != nil {
		return fault.New(fault.Internal, "copy the contents of %s to the tmpfs: %w", name, err)
	}
	return nil
}

// copyContents copies what a directory holds. The tree is an image's: nothing of
// it is followed or opened but plain files and directories.
func copyContents(from, to int, name string) error {
	const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	src, err := unix.Openat(from, name, dirFlags, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(src), name)
	defer dir.Close()
	dst, err := unix.Openat(to, name, dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := copyEntry(src, dst, n); err != nil {
			return &os.PathError{Op: "copy", Path: n, Err: err}
		}
	}
	if name == "." { // the mount's options name these
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	return copyAttributes(src, dst, &st)
}

func copyEntry(from, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		return copyContents(from, to, name)
	case unix.S_IFREG:
		return copyFile(from, to, name, &st)
	case unix.S_IFLNK:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, b)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(b[:n]), to, name); err != nil {
			return err
		}
		return unlessUnmapped(unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW))
	}
	if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
		return err
	}
	if err := unlessUnmapped(unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	return unix.Fchmodat(to, name, st.Mode&0o7777, 0)
}

func copyFile(from, to int, name string, st *unix.Stat_t) error {
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(src), name)
	defer in.Close()
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(dst), name)
	_, err = io.Copy(out, in)
	if err == nil {
		err = copyAttributes(src, dst, st)
	}
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

// copyAttributes gives owner, extended attributes, mode and times, in the order
// in which none undoes another.
func copyAttributes(src, dst int, st *unix.Stat_t) error {
	if err := unlessUnmapped(unix.Fchown(dst, int(st.Uid), int(st.Gid))); err != nil {
		return err
	}
	names := make([]byte, 1<<16)
	n, _ := unix.Flistxattr(src, names)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:max(n, 0)]), "\x00"), "\x00") {
		value := make([]byte, 1<<16)
		if n, err := unix.Fgetxattr(src, name, value); err == nil {
			_ = unix.Fsetxattr(dst, name, value[:n], 0) // a tmpfs keeps only some kinds
		}
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(dst), times, 0)
}

// unlessUnmapped lets pass that an owner has no place in a user namespace: the
// copy then is its root's.
func unlessUnmapped(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOVERFLOW) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}
