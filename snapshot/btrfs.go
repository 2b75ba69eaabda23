package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/deltree"
)

// btrfs makes trees that are subvolumes, and like another by a snapshot of it.
type btrfs struct{ store *Store }

// The ioctls of linux/btrfs.h. Both forms of the arguments have 4,096 bytes.
const (
	ioctlSubvolumeCreate   = 1<<30 | 4096<<16 | 0x94<<8 | 14
	ioctlSnapshotDestroy   = 1<<30 | 4096<<16 | 0x94<<8 | 15
	ioctlSnapshotCreate    = 1<<30 | 4096<<16 | 0x94<<8 | 23
	ioctlSubvolumeGetFlags = 2<<30 | 8<<16 | 0x94<<8 | 25
	ioctlSubvolumeSetFlags = 1<<30 | 8<<16 | 0x94<<8 | 26

	subvolumeReadOnly = 1 << 1
	subvolumeInode    = 256 // of the root of each, BTRFS_FIRST_FREE_OBJECTID
)

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

func (b btrfs) check() error {
	if kind := fileSystem(b.store.root); kind != Btrfs {
		return fault.New(fault.Invalid, "%s is not on a btrfs file system: put the data root on one, or choose the storage driver overlay", b.store.root)
	}
	return nil
}

func (b btrfs) status() [][2]string { return [][2]string{{"Backing Filesystem", Btrfs}} }

// keep has nothing to do: a snapshot is made by a commit of the file system.
func (b btrfs) keep(string) error { return nil }

func (b btrfs) create(path string) error {
	return in(filepath.Dir(path), func(dir int) error {
		var args volumeArgs
		copy(args.name[:len(args.name)-1], filepath.Base(path))
		return pathError("create subvolume", path, ioctl(dir, ioctlSubvolumeCreate, unsafe.Pointer(&args)))
	})
}

func (b btrfs) clone(path, from string) error {
	return in(filepath.Dir(path), func(dir int) error {
		return in(from, func(source int) error {
			args := snapshotArgs{fd: int64(source)}
			copy(args.name[:len(args.name)-1], filepath.Base(path))
			return pathError("create snapshot", path, ioctl(dir, ioctlSnapshotCreate, unsafe.Pointer(&args)))
		})
	})
}

// in calls f with the open directory.
func in(path string, f func(dir int) error) error {
	d, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()))
}

func (b btrfs) remove(path string) error {
	return in(filepath.Dir(path), func(dir int) error { return destroy(dir, filepath.Base(path), 0) })
}

// destroy deletes a subvolume with those that containers made in it. What is
// none is left to others. It lies depth levels below the first one.
func destroy(dir int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Ino != subvolumeInode {
		return nil
	}
	var args volumeArgs
	copy(args.name[:len(args.name)-1], name)
	err := ioctl(dir, ioctlSnapshotDestroy, unsafe.Pointer(&args))
	if errors.Is(err, unix.ENOTEMPTY) {
		if err := destroyNested(dir, name, depth); err != nil {
			return err
		}
		if err = ioctl(dir, ioctlSnapshotDestroy, unsafe.Pointer(&args)); errors.Is(err, unix.ENOENT) { // it lay deep
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
	if st.Ino == subvolumeInode {
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
		if st.Ino == subvolumeInode {
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
	if err := ioctl(dir, ioctlSubvolumeGetFlags, unsafe.Pointer(&flags)); err != nil {
		return os.NewSyscallError("ioctl", err)
	}
	if flags&subvolumeReadOnly == 0 {
		return nil
	}
	flags &^= subvolumeReadOnly
	return os.NewSyscallError("ioctl", ioctl(dir, ioctlSubvolumeSetFlags, unsafe.Pointer(&flags)))
}
