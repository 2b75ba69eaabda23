package treecopy

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// entry copies what is no directory.
func (w *worker) entry(d *directory, e fs.DirEntry) error {
	if e.Type().IsRegular() {
		return w.file(d, e.Name())
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.from.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	make, err := w.first(d, e.Name(), &st)
	if make == nil {
		return err
	}
	return make(w.special(int(d.to.Fd()), int(d.from.Fd()), e.Name(), &st))
}

// special copies a link, a device, a pipe or a socket, none of which is opened.
func (w *worker) special(dst, src int, name string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target := w.buffer()[:unix.PathMax]
		n, err := unix.Readlinkat(src, name, target)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(target[:n]), dst, name); err != nil {
			return err
		}
	} else if err := unix.Mknodat(dst, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)); err != nil {
		return err
	}
	if err := unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil { // it is no link, and nobody else writes here
			return err
		}
	}
	if err := w.xattrs(path(dst, name), path(src, name)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// first tells whether a file is to be copied: of one with several names only the
// first is, the others are made links to it. What it returns is called with how
// that went; nil if there is nothing to do.
func (w *worker) first(d *directory, name string, st *unix.Stat_t) (func(error) error, error) {
	if st.Nlink < 2 {
		return func(err error) error { return err }, nil
	}
	key := inode{uint64(st.Dev), st.Ino}
	w.linking.Lock()
	l, known := w.links[key]
	if !known {
		l = &link{path: d.path + name, made: make(chan struct{})}
		w.links[key] = l
	}
	w.linking.Unlock()
	if !known {
		return func(err error) error { close(l.made); return err }, nil
	}
	<-l.made // another worker is at it, and waits for nobody
	return nil, unix.Linkat(w.to, l.path, int(d.to.Fd()), name, 0)
}

// file copies a regular file.
func (w *worker) file(d *directory, name string) error {
	src, err := unix.Openat(int(d.from.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	make, err := w.first(d, name, &st)
	if make == nil {
		return err
	}
	return make(w.regular(int(d.to.Fd()), src, name, &st))
}

func (w *worker) regular(to, src int, name string, st *unix.Stat_t) error {
	mode := st.Mode & 0o777
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if err := w.content(dst, src, st.Size); err != nil {
		return err
	}
	return w.attributes(dst, src, st, mode&^w.mask)
}

// small is up to where a file is read and written at once.
const small = 64 << 10

func (w *worker) content(dst, src int, size int64) error {
	if size == 0 {
		return nil
	}
	if !w.noClone.Load() {
		err := unix.IoctlFileClone(dst, src)
		if err == nil {
			return nil
		}
		if !cannot(err) {
			return err
		}
		w.noClone.Store(true)
	}
	if size <= small {
		return w.bytes(dst, src, 0, size)
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(src, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		if err != nil {
			return w.bytes(dst, src, at, size-at) // it knows of no holes
		}
		hole, err := unix.Seek(src, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := w.bytes(dst, src, data, hole-data); err != nil {
			return err
		}
		at = hole
	}
	return unix.Ftruncate(dst, size)
}

// bytes copies n bytes at an offset.
func (w *worker) bytes(dst, src int, at, n int64) error {
	for n > small && !w.noRange.Load() {
		from, to := at, at
		done, err := unix.CopyFileRange(src, &from, dst, &to, int(min(n, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case cannot(err):
			w.noRange.Store(true)
		case err != nil:
			return err
		}
		if done <= 0 {
			break // read(2) tells whether this is the end
		}
		at, n = at+int64(done), n-int64(done)
	}
	data := w.buffer()
	for n > 0 {
		read, err := unix.Pread(src, data[:min(n, int64(len(data)))], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if read == 0 {
			return io.ErrUnexpectedEOF
		}
		for chunk := data[:read]; len(chunk) > 0; {
			written, err := unix.Pwrite(dst, chunk, at)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			written = max(written, 0)
			chunk, at, n = chunk[written:], at+int64(written), n-int64(written)
		}
	}
	return nil
}

func (w *worker) buffer() []byte {
	if w.data == nil {
		w.data = make([]byte, 256<<10)
	}
	return w.data
}

// cannot tells whether the file system has not what was asked for.
func cannot(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EXDEV, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// attributes gives an open copy those of the original. It was made by this
// process's user with the mode, 0 for one that is to be set in any case.
func (w *worker) attributes(dst, src int, st *unix.Stat_t, mode uint32) error {
	if int(st.Uid) != 0 || int(st.Gid) != 0 || mode == 0 {
		if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		mode = 0 // the former clears set-ID bits
	}
	if mode == 0 || mode != st.Mode&0o7777 {
		if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
			return err
		}
	}
	if err := w.fdXattrs(dst, src); err != nil {
		return err
	}
	return setTimes(dst, st)
}

// setTimes sets those of an open file.
func setTimes(fd int, st *unix.Stat_t) error {
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	return utimensat(fd, &times)
}

// path names an entry of an open directory for the calls that take only paths.
func path(dir int, name string) string { return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name }

// fdXattrs copies the extended attributes of an open file.
func (w *worker) fdXattrs(dst, src int) error {
	return w.copyXattrs(func(names []byte) (int, error) { return unix.Flistxattr(src, names) },
		func(name string, value []byte) (int, error) { return unix.Fgetxattr(src, name, value) },
		func(name string, value []byte) error { return unix.Fsetxattr(dst, name, value, 0) })
}

// xattrs copies those of what is not opened.
func (w *worker) xattrs(dst, src string) error {
	return w.copyXattrs(func(names []byte) (int, error) { return unix.Llistxattr(src, names) },
		func(name string, value []byte) (int, error) { return unix.Lgetxattr(src, name, value) },
		func(name string, value []byte) error { return unix.Lsetxattr(dst, name, value, 0) })
}

func (w *worker) copyXattrs(list func([]byte) (int, error), get func(string, []byte) (int, error), set func(string, []byte) error) error {
	if w.noXattrs.Load() {
		return nil
	}
	if w.names == nil {
		w.names, w.value = make([]byte, 65536), make([]byte, 65536) // XATTR_LIST_MAX, XATTR_SIZE_MAX
	}
	n, err := list(w.names)
	if errors.Is(err, unix.ENOTSUP) {
		w.noXattrs.Store(true)
		return nil
	}
	if err != nil || n == 0 {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(w.names[:n]), "\x00"), "\x00") {
		n, err := get(name, w.value)
		if err == nil {
			err = set(name, w.value[:n])
		}
		if err != nil && !optional(name, err) {
			return &fs.PathError{Op: "set the attribute", Path: name, Err: err}
		}
	}
	return nil
}

// optional tells whether an attribute that cannot be set is one without which
// the file works as meant: all but capabilities and access lists.
func optional(name string, err error) bool {
	if name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_") {
		return false
	}
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODATA)
}

// umask is the process's.
func umask() uint32 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32)
			if err == nil {
				return uint32(mask)
			}
		}
	}
	return 0o777 // each mode is set
}
