package treecopy

import (
	"errors"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ways are those of the ways to copy data that the file systems do not have: they
// are not tried again.
type ways struct{ noClone, noRange atomic.Bool }

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openPlace opens a regular file for reading that is known by its place.
func openPlace(place int) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOCTTY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOATIME
	fd, err := unix.Open(procFD(place), flags, 0)
	if errors.Is(err, unix.EPERM) { // O_NOATIME is for a file's owner and for root
		fd, err = unix.Open(procFD(place), flags&^unix.O_NOATIME, 0)
	}
	if errors.Is(err, unix.EWOULDBLOCK) { // somebody has a lease of it, and gives it back or loses it
		fd, err = unix.Open(procFD(place), flags&^unix.O_NONBLOCK, 0)
	}
	return fd, err
}

// regular copies a regular file.
func (c *copier) regular(w *worker, to, place int, name string, st *unix.Stat_t) error {
	src, err := openPlace(place)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, st.Mode&0o777)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if st.Size > 0 {
		if err := c.content(w, dst, src, st); err != nil {
			return err
		}
	}
	return w.dressNew(dst, src, st)
}

// content copies what a file holds.
func (c *copier) content(w *worker, dst, src int, st *unix.Stat_t) error {
	if !c.noClone.Load() {
		err := unix.IoctlFileClone(dst, src)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINVAL): // not of this file, as one of swap or without checksums
		case cannot(err):
			c.noClone.Store(true)
		default:
			return err
		}
	}
	if st.Blocks*512 >= st.Size {
		return c.bytes(w, dst, src, 0, st.Size)
	}
	return c.extents(w, dst, src, st.Size)
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

// extents copies what is data and leaves out the holes between.
func (c *copier) extents(w *worker, dst, src int, size int64) error {
	for at := int64(0); at < size; {
		data, err := unix.Seek(src, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // a hole up to the end
			break
		}
		hole := size
		if err == nil {
			hole, err = unix.Seek(src, data, unix.SEEK_HOLE)
		} else if cannot(err) {
			data, err = at, nil
		}
		if err != nil {
			return err
		}
		if err := c.bytes(w, dst, src, data, min(hole, size)-data); err != nil {
			return err
		}
		at = hole
	}
	return unix.Ftruncate(dst, size)
}

// bytes copies n bytes at the offset, or up to the end of a file that has become
// shorter.
func (c *copier) bytes(w *worker, dst, src int, at, n int64) error {
	for n > 0 && !c.noRange.Load() {
		from, to := at, at
		done, err := unix.CopyFileRange(src, &from, dst, &to, int(min(n, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if cannot(err) {
			c.noRange.Store(true)
			break
		}
		if err != nil {
			return err
		}
		if done == 0 {
			break // read(2) tells whether this is the end: some file systems of the kernel's own say so always
		}
		at, n = at+int64(done), n-int64(done)
	}
	if n > 0 && w.data == nil {
		w.data = make([]byte, 256<<10)
	}
	for n > 0 {
		read, err := unix.Pread(src, w.data[:min(n, int64(len(w.data)))], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if read == 0 {
			return nil
		}
		for chunk := w.data[:read]; len(chunk) > 0; {
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
