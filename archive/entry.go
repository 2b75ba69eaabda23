package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
)

const blockSize = 4096

func mode(hdr *tar.Header) uint32 { return uint32(hdr.Mode) & 0o7777 }

// make calls create; when something of the name stands in the way it is
// removed first, as the last entry of a name counts.
func (x *extractor) make(dir int, base string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if x.KeepKinds {
		// By one call that takes no directory: a look before would tell of another moment.
		x.stale = true
		if err := unix.Unlinkat(dir, base, 0); errors.Is(err, unix.EISDIR) {
			return errKept
		} else if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return create()
	}
	// Others may make it at the same time: another archive, the container itself.
	for range maxTries {
		if err = x.remove(dir, base); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err = create(); !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return err
}

// maxTries bounds how often an entry takes the place of what others put there.
const maxTries = 16

// errKept is of what must not take the place of a directory, or a directory that
// must not take the place of something else.
var errKept = errors.New("it is of another kind")

// placed makes the error of a system call for an entry, nil for nil.
func placed(hdr *tar.Header, err error) error {
	switch {
	case !errors.Is(err, errKept):
		return failed(hdr.Name, err)
	case hdr.Typeflag == tar.TypeDir:
		return fault.New(fault.Invalid, "cannot overwrite non-directory with directory %q", hdr.Name)
	}
	return fault.New(fault.Invalid, "cannot overwrite directory with non-directory %q", hdr.Name)
}

func (x *extractor) file(ctx context.Context, dir int, base string, hdr *tar.Header, data io.Reader) error {
	if hdr.Size > maxSize {
		return refuse(hdr.Name, "has %d bytes, more than any file may", hdr.Size)
	}
	var fd int
	err := x.make(dir, base, func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode(hdr)&0o777)
		return err
	})
	if err != nil {
		return placed(hdr, err)
	}
	defer unix.Close(fd)
	if hdr.Size > 0 {
		if err := x.copy(ctx, fd, hdr, data); err != nil {
			return err
		}
	}
	if err := x.disinherit(fd); err != nil {
		return failed(hdr.Name, err)
	}
	if err := x.own(fd, hdr); err != nil {
		return failed(hdr.Name, err)
	}
	if err := x.setXattrs(hdr, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) }); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(fd, "", timespecs(hdr.AccessTime, hdr.ModTime), unix.AT_EMPTY_PATH); err != nil {
		return failed(hdr.Name, err)
	}
	return nil
}

// own gives a new file its owner and mode where those are not what it was made
// with, as for most files: each change costs the file system a transaction.
func (x *extractor) own(fd int, hdr *tar.Header) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	// The order matters: chown clears set-ID bits and capabilities.
	if int(st.Uid) != hdr.Uid || int(st.Gid) != hdr.Gid {
		if err := x.chown(fd, hdr.Uid, hdr.Gid); err != nil {
			return err
		}
	}
	if st.Mode&0o7777 == mode(hdr) && mode(hdr)&0o6000 == 0 {
		return nil
	}
	return unix.Fchmod(fd, mode(hdr))
}

// chown gives what is open to its owner, unless all is to be ours.
func (x *extractor) chown(fd, uid, gid int) error {
	return x.chownAt(fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// chownAt is fchownat(2). What is copied to a mount that shows files as those of
// others is ours when its owner is none of them.
func (x *extractor) chownAt(dir int, name string, uid, gid, flags int) error {
	if x.Mine {
		return nil
	}
	err := unix.Fchownat(dir, name, uid, gid, flags)
	if x.Whiteouts == NoWhiteouts && errors.Is(err, unix.EOVERFLOW) {
		return nil
	}
	return err
}

// copy writes the file's data. Of a sparse entry, runs of zeros become holes.
func (x *extractor) copy(ctx context.Context, fd int, hdr *tar.Header, data io.Reader) error {
	sparse := hdr.Typeflag == tar.TypeGNUSparse || hdr.PAXRecords["GNU.sparse.realsize"] != "" || hdr.PAXRecords["GNU.sparse.size"] != ""
	var offset int64
	for {
		n, err := io.ReadFull(data, x.buffer[:min(int64(len(x.buffer)), hdr.Size-offset+1)])
		chunk := x.buffer[:n]
		if cancelled := ctx.Err(); cancelled != nil {
			return cancelled
		}
		if err := x.write(fd, hdr, chunk, offset, sparse); err != nil {
			return err
		}
		offset += int64(n)
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && offset == hdr.Size {
			break
		}
		if err != nil {
			return tarError(err)
		}
	}
	if !sparse {
		return nil
	}
	if err := unix.Ftruncate(fd, offset); err != nil {
		return failed(hdr.Name, err)
	}
	return nil
}

// write puts part of a file in its place. Of a sparse one, blocks of zeros are
// left out.
func (x *extractor) write(fd int, hdr *tar.Header, data []byte, offset int64, sparse bool) error {
	for len(data) > 0 {
		n, hole := len(data), false
		if sparse {
			n = min(blockSize, len(data))
			hole = zeros(data[:n])
			for n < len(data) && zeros(data[n:min(n+blockSize, len(data))]) == hole {
				n = min(n+blockSize, len(data))
			}
		}
		if hole {
			if x.holes += int64(n); x.holes > maxHoles {
				return refuse(hdr.Name, "is sparse and makes the holes of the archive more than %d bytes", maxHoles)
			}
		} else {
			for done := 0; done < n; {
				w, err := unix.Pwrite(fd, data[done:n], offset+int64(done))
				if err != nil && !errors.Is(err, unix.EINTR) {
					return failed(hdr.Name, err)
				}
				done += max(w, 0)
			}
			x.stats.Bytes += int64(n+blockSize-1) &^ (blockSize - 1)
		}
		data, offset = data[n:], offset+int64(n)
	}
	return nil
}

func zeros(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1])
}

func (x *extractor) directory(name string, hdr *tar.Header) error {
	fd := x.root
	if name != "." {
		dir, err := x.parent(name)
		if err != nil {
			return err
		}
		if fd, err = x.openOrMakeDir(dir, path.Base(name)); err != nil {
			return placed(hdr, err)
		}
		x.remember(name, fd)
		x.implicit.drop(fd)
	}
	x.stats.Bytes += blockSize
	if err := x.disinherit(fd); err != nil {
		return failed(hdr.Name, err)
	}
	if err := x.chown(fd, hdr.Uid, hdr.Gid); err != nil {
		return failed(hdr.Name, err)
	}
	if err := unix.Fchmod(fd, mode(hdr)); err != nil {
		return failed(hdr.Name, err)
	}
	if err := x.keepTime(name, hdr.ModTime); err != nil {
		return err
	}
	return x.setXattrs(hdr, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) })
}

// openOrMakeDir opens a directory that is there itself, not by a link, or
// makes it in the place of what is there.
func (x *extractor) openOrMakeDir(dir int, base string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	err := unix.Mkdirat(dir, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		if fd, err := unix.Openat(dir, base, flags, 0); err == nil {
			return fd, nil
		}
		if x.KeepKinds {
			return -1, errKept
		}
		// The whiteout that an earlier entry made goes on to hide what is below.
		hides := x.Whiteouts == OverlayWhiteouts && isWhiteout(dir, base)
		err = x.make(dir, base, func() error { return unix.Mkdirat(dir, base, 0o700) })
		if err == nil && hides {
			return x.openOpaque(dir, base, flags)
		}
	}
	if err != nil {
		return -1, err
	}
	return unix.Openat(dir, base, flags, 0)
}

func (x *extractor) openOpaque(dir int, base string, flags int) (int, error) {
	fd, err := unix.Openat(dir, base, flags, 0)
	if err != nil {
		return -1, err
	}
	if err := overlayfs.SetOpaque(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// isWhiteout tells whether overlayfs takes the name for a whiteout.
func isWhiteout(dir int, base string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && overlayfs.IsWhiteout(&st)
}

func (x *extractor) symlink(dir int, base string, hdr *tar.Header) error {
	if hdr.Linkname == "" || len(hdr.Linkname) >= maxName {
		return refuse(hdr.Name, "is a symbolic link whose target is empty or too long")
	}
	err := x.make(dir, base, func() error { return unix.Symlinkat(hdr.Linkname, dir, base) })
	if err != nil {
		return placed(hdr, err)
	}
	if err := x.ownLink(hdr.Name, dir, base); err != nil {
		return err
	}
	return x.attributes(dir, base, hdr)
}

// hardlink links to what an earlier entry of the same archive made.
func (x *extractor) hardlink(dir int, base string, hdr *tar.Header) error {
	target, err := inside(x.renamed(hdr.Linkname))
	if err != nil {
		return refuse(hdr.Name, "is a hard link to %q, which is outside of the root of the archive", hdr.Linkname)
	}
	if target, err = x.confined(path.Join(x.Dir, target)); err != nil {
		return failed(hdr.Name, err)
	}
	from, err := x.open(path.Dir(target))
	if err != nil || x.reserved(path.Base(target)) {
		return refuse(hdr.Name, "is a hard link to %q, which is not in the archive before it", hdr.Linkname)
	}
	var old, now unix.Stat_t
	last := path.Base(target)
	if unix.Fstatat(from, last, &old, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return refuse(hdr.Name, "is a hard link to %q, which is not in the archive before it", hdr.Linkname)
	}
	if x.Whiteouts == OverlayWhiteouts && overlayfs.IsWhiteout(&old) {
		return refuse(hdr.Name, "is a hard link to %q, which the archive has removed", hdr.Linkname)
	}
	if old.Mode&unix.S_IFMT == unix.S_IFDIR {
		return refuse(hdr.Name, "is a hard link to the directory %q", hdr.Linkname)
	}
	if unix.Fstatat(dir, base, &now, unix.AT_SYMLINK_NOFOLLOW) == nil && now.Ino == old.Ino && now.Dev == old.Dev {
		return nil // to itself
	}
	err = x.make(dir, base, func() error { return unix.Linkat(from, last, dir, base, 0) })
	if errors.Is(err, unix.ENOENT) {
		return refuse(hdr.Name, "is a hard link to %q, which is in the directory whose place it takes", hdr.Linkname)
	}
	if err != nil {
		return placed(hdr, err)
	}
	return x.agree(dir, base, hdr, &old)
}

// agree gives what was linked to the attributes of the link's entry, as for Docker and
// containerd: the last entry counts. They are the same in the archives of most writers.
func (x *extractor) agree(dir int, base string, hdr *tar.Header, old *unix.Stat_t) error {
	link := old.Mode&unix.S_IFMT == unix.S_IFLNK
	given := int(old.Uid) != hdr.Uid || int(old.Gid) != hdr.Gid
	if given {
		if err := x.chownAt(dir, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return failed(hdr.Name, err)
		}
	}
	if !link && (given || old.Mode&0o7777 != mode(hdr)) { // which chown takes set-ID bits from
		if err := chmodNode(dir, base, mode(hdr)); err != nil {
			return failed(hdr.Name, err)
		}
	}
	if err := x.setXattrs(hdr, func(k string, v []byte) error { return unix.Lsetxattr(procPath(dir, base), k, v, 0) }); err != nil {
		return err
	}
	if link || hdr.ModTime.Equal(time.Unix(old.Mtim.Unix())) {
		return nil
	}
	return setTimes(dir, base, hdr)
}

func (x *extractor) node(dir int, base string, hdr *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[hdr.Typeflag]
	if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
		return refuse(hdr.Name, "is the device %d:%d, which cannot be", hdr.Devmajor, hdr.Devminor)
	}
	if x.Whiteouts != Verbatim && hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0 {
		return refuse(hdr.Name, "is the character device 0:0, which is how the overlay file system says that nothing is there")
	}
	var dev uint64
	if hdr.Typeflag != tar.TypeFifo {
		dev = unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
	}
	err := x.make(dir, base, func() error { return unix.Mknodat(dir, base, kind|0o600, int(dev)) })
	if err != nil {
		return placed(hdr, err)
	}
	return x.attributes(dir, base, hdr)
}

// attributes sets owner, mode, extended attributes and time of an entry that
// is not to be opened.
func (x *extractor) attributes(dir int, base string, hdr *tar.Header) error {
	if err := x.chownAt(dir, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return failed(hdr.Name, err)
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if x.inherits {
			if err := dropACL(unix.Lremovexattr(procPath(dir, base), aclAccess)); err != nil {
				return failed(hdr.Name, err)
			}
		}
		if err := chmodNode(dir, base, mode(hdr)); err != nil {
			return failed(hdr.Name, err)
		}
	}
	if err := x.setXattrs(hdr, func(k string, v []byte) error { return unix.Lsetxattr(procPath(dir, base), k, v, 0) }); err != nil {
		return err
	}
	return setTimes(dir, base, hdr)
}

// chmodNode sets the mode of what is no regular file. A container that runs may
// have put a link in its place, which chmod(2) would follow to a file of the
// host: a mere place (O_PATH) is none.
func chmodNode(dir int, base string, mode uint32) error {
	place, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(place)
	return unix.Chmod(procFD(place), mode)
}

func timespecs(access, modify time.Time) []unix.Timespec {
	if access.IsZero() {
		access = modify
	}
	return []unix.Timespec{
		{Sec: access.Unix(), Nsec: int64(access.Nanosecond())},
		{Sec: modify.Unix(), Nsec: int64(modify.Nanosecond())},
	}
}

func setTimes(dir int, base string, hdr *tar.Header) error {
	err := unix.UtimesNanoAt(dir, base, timespecs(hdr.AccessTime, hdr.ModTime), unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return failed(hdr.Name, err)
	}
	return nil
}
