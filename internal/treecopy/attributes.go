package treecopy

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// sizeMax is XATTR_LIST_MAX, XATTR_SIZE_MAX, and more than any link's target.
const sizeMax = 65536

func (w *worker) buffers() {
	if w.names == nil {
		w.names, w.value = make([]byte, sizeMax), make([]byte, sizeMax)
	}
}

func (w *worker) readlink(place int) (string, error) {
	w.buffers()
	n, err := unix.Readlinkat(place, "", w.value)
	return string(w.value[:max(n, 0)]), err
}

// TakeAfter makes the owner, mode and extended attributes of the open file or
// directory to those of from, of which st tells, and removes what other attributes
// it has. Its times stay.
func TakeAfter(to, from int, st *unix.Stat_t) error {
	w := &worker{}
	names, err := w.attributeNames(unix.Flistxattr(to, w.namesBuffer()))
	if err != nil {
		return err
	}
	for name := range names {
		if err := unix.Fremovexattr(to, name); err != nil && !optional(name, err) {
			return pathError("removexattr "+name, procFD(to), err)
		}
	}
	if err := setOwner(to, st); err != nil {
		return err
	}
	return w.copyAttributes(to, from)
}

// Times gives a directory the times alone.
func Times(to *os.File, st *unix.Stat_t) error {
	return setTimes(int(to.Fd()), "", st, unix.AT_EMPTY_PATH)
}

// dress gives a directory the attributes of its original.
func (w *worker) dress(to, from int, st *unix.Stat_t) error {
	if err := setOwner(to, st); err != nil {
		return err
	}
	if err := w.copyAttributes(to, from); err != nil {
		return err
	}
	return setTimes(to, "", st, unix.AT_EMPTY_PATH)
}

// dressNew gives a file that was just made those attributes that it has not yet:
// each change costs the file system a transaction.
func (w *worker) dressNew(to, from int, st *unix.Stat_t) error {
	var have unix.Stat_t
	if err := unix.Fstat(to, &have); err != nil {
		return err
	}
	if have.Uid != st.Uid || have.Gid != st.Gid {
		if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if mode := st.Mode & 0o7777; have.Mode&0o7777 != mode || mode&0o6000 != 0 {
		if err := unix.Fchmod(to, mode); err != nil {
			return err
		}
	}
	if err := w.copyAttributes(to, from); err != nil {
		return err
	}
	return setTimes(to, "", st, unix.AT_EMPTY_PATH)
}

// dressAt is dress for what is not to be opened.
func (w *worker) dressAt(dir int, name string, place int, st *unix.Stat_t) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := chmodAt(dir, name, st.Mode&0o7777); err != nil {
			return err
		}
	}
	from := procFD(place)
	names, err := w.attributeNames(unix.Listxattr(from, w.namesBuffer()))
	if err != nil {
		return err
	}
	to := procFD(dir) + "/" + name
	for attribute := range names {
		n, err := unix.Getxattr(from, attribute, w.value)
		if err == nil {
			err = unix.Lsetxattr(to, attribute, w.value[:n], 0)
		}
		if err != nil && !optional(attribute, err) {
			return pathError("setxattr "+attribute, name, err)
		}
	}
	return setTimes(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
}

// chmodAt is chmod(2) of what is no link, and is not to be opened. It follows none:
// the tree may lie where others can put one, after all.
func chmodAt(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(procFD(fd), mode)
}

// setOwner sets the owner and then the mode, whose set-ID bits the former clears.
func setOwner(fd int, st *unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(fd, st.Mode&0o7777)
}

func setTimes(dir int, name string, st *unix.Stat_t, flags int) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Atim, st.Mtim}, flags)
}

func (w *worker) namesBuffer() []byte {
	w.buffers()
	return w.names
}

// attributeNames goes through what listxattr(2) has put into the buffer.
func (w *worker) attributeNames(n int, err error) (iter.Seq[string], error) {
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return func(func(string) bool) {}, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: "file", Err: err}
	}
	return strings.SplitSeq(strings.TrimSuffix(string(w.names[:n]), "\x00"), "\x00"), nil
}

func (w *worker) copyAttributes(to, from int) error {
	names, err := w.attributeNames(unix.Flistxattr(from, w.namesBuffer()))
	if err != nil {
		return err
	}
	for name := range names {
		n, err := unix.Fgetxattr(from, name, w.value)
		if err == nil {
			err = unix.Fsetxattr(to, name, w.value[:n], 0)
		}
		if err != nil && !optional(name, err) {
			return pathError("setxattr "+name, procFD(to), err)
		}
	}
	return nil
}

// optional tells whether an attribute that cannot be set is one without which
// the file works as meant: all but capabilities and access lists.
func optional(name string, err error) bool {
	if errors.Is(err, unix.ENODATA) { // of the original, by now
		return true
	}
	if name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_") {
		return false
	}
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)
}

// inheritNothing takes the access lists from a new directory that the one above
// handed down: the first would stay, and the second go to all that is made in it.
func inheritNothing(dir int) error {
	for _, name := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		if err := unix.Fremovexattr(dir, name); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return pathError("removexattr "+name, procFD(dir), err)
		}
	}
	return unix.Fchmod(dir, 0o700)
}
