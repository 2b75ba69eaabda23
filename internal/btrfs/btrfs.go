// Package btrfs makes, copies, bounds and removes subvolumes, trees of btrfs that
// are file systems of their own.
package btrfs

import (
	"errors"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/deltree"
)

// The ioctls of linux/btrfs.h. Both forms of the arguments have 4,096 bytes.
const (
	ioctlCreate   = 1<<30 | 4096<<16 | 0x94<<8 | 14
	ioctlDestroy  = 1<<30 | 4096<<16 | 0x94<<8 | 15
	ioctlSnapshot = 1<<30 | 4096<<16 | 0x94<<8 | 23
	ioctlGetFlags = 2<<30 | 8<<16 | 0x94<<8 | 25
	ioctlSetFlags = 1<<30 | 8<<16 | 0x94<<8 | 26
	ioctlChildren = 3<<30 | 4096<<16 | 0x94<<8 | 61

	readOnly  = 1 << 1
	rootInode = 256 // of the root of each, BTRFS_FIRST_FREE_OBJECTID
)

// maxDepth is how many levels of a tree are looked at: paths, of 4,096 bytes at
// most, lead no deeper.
const maxDepth = 2048

// volumeArgs is struct btrfs_ioctl_vol_args.
type volumeArgs struct {
	fd   int64
	name [4088]byte
}

// snapshotArgs is struct btrfs_ioctl_vol_args_v2.
type snapshotArgs struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

// childrenArgs is struct btrfs_ioctl_get_subvol_rootref_args.
type childrenArgs struct {
	min     uint64
	refs    [255][2]uint64
	number  uint8
	padding [7]byte
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// Is tells whether what is open lies on btrfs.
func Is(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && uint32(st.Type) == unix.BTRFS_SUPER_MAGIC
}

// IsSubvolume tells whether the open directory is a subvolume.
func IsSubvolume(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Ino == rootInode && st.Mode&unix.S_IFMT == unix.S_IFDIR && Is(fd)
}

// HasNested tells whether there are other subvolumes in a subvolume, which a
// snapshot of it leaves out.
func HasNested(fd int) bool {
	var args childrenArgs
	return ioctl(fd, ioctlChildren, unsafe.Pointer(&args)) != nil || args.number > 0
}

// Create makes an empty subvolume.
func Create(dir int, name string) error {
	var args volumeArgs
	copy(args.name[:len(args.name)-1], name)
	return pathError("create subvolume", name, ioctl(dir, ioctlCreate, unsafe.Pointer(&args)))
}

// Snapshot makes name in the directory a writable snapshot of an open subvolume,
// unix.EXDEV when that is of another file system.
func Snapshot(dir int, name string, source int) error {
	args := snapshotArgs{fd: int64(source)}
	copy(args.name[:len(args.name)-1], name)
	return pathError("create snapshot", name, ioctl(dir, ioctlSnapshot, unsafe.Pointer(&args)))
}

// Remove removes a subvolume with those that were made in it. What is none is
// left to others.
func Remove(dir int, name string) error { return destroy(dir, name, 0) }

// destroy deletes a subvolume with those that containers made in it. What is
// none is left to others. It lies depth levels below the first one.
func destroy(dir int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Ino != rootInode {
		return nil
	}
	var args volumeArgs
	copy(args.name[:len(args.name)-1], name)
	err := ioctl(dir, ioctlDestroy, unsafe.Pointer(&args))
	if errors.Is(err, unix.ENOTEMPTY) {
		if err := destroyNested(dir, name, depth); err != nil {
			return err
		}
		if err = ioctl(dir, ioctlDestroy, unsafe.Pointer(&args)); errors.Is(err, unix.ENOENT) { // it lay deep
			err = nil
		}
	}
	return pathError("delete subvolume", name, err)
}

// destroyNested deletes the subvolumes in a directory, which may be a subvolume
// itself. What lies too deep goes as a whole.
func destroyNested(at int, name string, depth int) error {
	if depth == maxDepth {
		return deltree.At(at, name) // the kernel removes empty subvolumes by rmdir(2)
	}
	d, err := openDir(at, name)
	if err != nil {
		return err
	}
	defer d.Close()
	dir := int(d.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Ino == rootInode {
		if err := makeWritable(dir); err != nil {
			return err
		}
	}
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := unix.Fstatat(dir, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return pathError("stat", e.Name(), err)
		}
		if st.Ino == rootInode {
			err = destroy(dir, e.Name(), depth+1)
		} else {
			err = destroyNested(dir, e.Name(), depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeWritable lets entries of a read-only subvolume be deleted.
func makeWritable(dir int) error {
	var flags uint64
	if err := ioctl(dir, ioctlGetFlags, unsafe.Pointer(&flags)); err != nil {
		return os.NewSyscallError("ioctl", err)
	}
	if flags&readOnly == 0 {
		return nil
	}
	flags &^= readOnly
	return os.NewSyscallError("ioctl", ioctl(dir, ioctlSetFlags, unsafe.Pointer(&flags)))
}

// openDir opens a directory for reading, not by a link.
func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
