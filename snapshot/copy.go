package snapshot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// copier copies one tree, which nobody changes meanwhile, as it is: names,
// hard links, owners, modes, extended attributes with access lists and
// capabilities, devices, holes, times.
type copier struct {
	root   *os.File         // of the copy
	links  map[inode]string // first copy of a file of several names, from the root
	xattrs []byte           // buffers
	value  []byte
	data   []byte
	// What the file system cannot do is not tried again.
	noClone, noRange bool
}

type inode struct{ dev, ino uint64 }

// copyTree makes the directory to, which is not there, a copy of from.
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
	c := &copier{root: dst, links: map[inode]string{}}
	return c.directory(dst, src, "")
}

// directory fills the directory to with what is in from, and gives it the
// attributes last: a default access list would go to what is made in it.
func (c *copier) directory(to, from *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	for {
		names, err := from.Readdirnames(1024)
		for _, name := range names {
			if err := c.entry(to, from, name, path+name); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.attributes(int(to.Fd()), ".", int(from.Fd()), ".", &st)
}

func (c *copier) entry(to, from *os.File, name, path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	dst, src := int(to.Fd()), int(from.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.subdirectory(to, from, name, path)
	}
	key := inode{uint64(st.Dev), st.Ino}
	if st.Nlink > 1 {
		if first, ok := c.links[key]; ok {
			return pathError("link", path, unix.Linkat(int(c.root.Fd()), first, dst, name, 0))
		}
		c.links[key] = path
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.file(dst, src, name, st.Size)
	case unix.S_IFLNK:
		var target string
		if target, err = readlink(src, name); err == nil {
			err = unix.Symlinkat(target, dst, name)
		}
	default: // a device, a pipe, a socket
		err = unix.Mknodat(dst, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	}
	if err == nil {
		err = c.attributes(dst, name, src, name, &st)
	}
	return pathError("copy", path, err)
}

// checkPath refuses what no path leads to: an image can hold trees of any depth,
// and each level that is walked takes memory and descriptors.
func checkPath(path string) error {
	if len(path) >= unix.PathMax {
		return fault.New(fault.Invalid, "the image has a path of more than %d bytes, %q…: with this storage driver it cannot be used", unix.PathMax, path[:80])
	}
	return nil
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func (c *copier) subdirectory(to, from *os.File, name, path string) error {
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return pathError("mkdir", path, err)
	}
	dst, err := openDir(int(to.Fd()), name)
	if err != nil {
		return err
	}
	defer dst.Close()
	src, err := openDir(int(from.Fd()), name)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.directory(dst, src, path+"/")
}

// file copies a regular file's data.
func (c *copier) file(to, from int, name string, size int64) error {
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if size == 0 {
		return nil
	}
	if !c.noClone {
		if err := unix.IoctlFileClone(dst, src); err == nil {
			return nil
		} else if !cannot(err) {
			return err
		}
		c.noClone = true
	}
	return c.extents(dst, src, size)
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
func (c *copier) extents(dst, src int, size int64) error {
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
		if err := c.bytes(dst, src, data, min(hole, size)-data); err != nil {
			return err
		}
		at = hole
	}
	return unix.Ftruncate(dst, size)
}

// bytes copies n bytes at the offset.
func (c *copier) bytes(dst, src int, at, n int64) error {
	for n > 0 && !c.noRange {
		from, to := at, at
		done, err := unix.CopyFileRange(src, &from, dst, &to, int(min(n, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if cannot(err) {
			c.noRange = true
			break
		}
		if err != nil {
			return err
		}
		if done == 0 {
			break // read(2) tells whether this is the end
		}
		at, n = at+int64(done), n-int64(done)
	}
	if n > 0 && c.data == nil {
		c.data = make([]byte, 1<<20)
	}
	for n > 0 {
		read, err := unix.Pread(src, c.data[:min(n, int64(len(c.data)))], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if read == 0 {
			return io.ErrUnexpectedEOF
		}
		for chunk := c.data[:read]; len(chunk) > 0; {
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

// attributes gives a copy, without other attributes yet, those of the original.
func (c *copier) attributes(toDir int, to string, fromDir int, from string, st *unix.Stat_t) error {
	if err := setOwner(toDir, to, st); err != nil {
		return err
	}
	if err := c.copyXattrs(procPath(toDir, to), procPath(fromDir, from)); err != nil {
		return err
	}
	return setTimes(toDir, to, st.Atim, st.Mtim)
}

// setOwner sets the owner and then the mode, whose set-ID bits the former clears.
func setOwner(dir int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	return unix.Fchmodat(dir, name, st.Mode&0o7777, 0) // it is no link, and nobody else writes here
}

// takeAttributes makes a directory's owner, mode and extended attributes those
// of another, of which st tells.
func (c *copier) takeAttributes(to, from int, st *unix.Stat_t) error {
	path := procPath(to, ".")
	names, err := c.xattrNames(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := unix.Lremovexattr(path, name); err != nil && !optional(name, err) {
			return pathError("removexattr "+name, path, err)
		}
	}
	if err := setOwner(to, ".", st); err != nil {
		return err
	}
	return c.copyXattrs(path, procPath(from, "."))
}

func setTimes(dir int, name string, access, modify unix.Timespec) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{access, modify}, unix.AT_SYMLINK_NOFOLLOW)
}

func procPath(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// xattrNames lists the extended attributes of what path names itself.
func (c *copier) xattrNames(path string) ([]string, error) {
	if c.xattrs == nil {
		c.xattrs, c.value = make([]byte, 65536), make([]byte, 65536) // XATTR_LIST_MAX, XATTR_SIZE_MAX
	}
	n, err := unix.Llistxattr(path, c.xattrs)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, pathError("listxattr", path, err)
	}
	return slices.Sorted(strings.SplitSeq(strings.TrimSuffix(string(c.xattrs[:n]), "\x00"), "\x00")), nil
}

func (c *copier) copyXattrs(to, from string) error {
	names, err := c.xattrNames(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, err := unix.Lgetxattr(from, name, c.value)
		if err == nil {
			err = unix.Lsetxattr(to, name, c.value[:n], 0)
		}
		if err != nil && !optional(name, err) {
			return pathError("setxattr "+name, to, err)
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
