package keeper

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/supervise"
)

const rootfsName = "rootfs"

// mountRoot mounts the root at target, in this process's mount namespace only,
// and tells whether there was anything to mount. It is shown to the user namespace
// that was handed over, if there is one.
func mountRoot(r supervise.Rootfs, mapped bool, target string) (bool, error) {
	if r.Dir == "" && len(r.Lower) == 0 {
		return false, nil
	}
	if err := os.Mkdir(target, 0o711); err != nil && !os.IsExist(err) {
		return false, err
	}
	fd, err := detachedRoot(r, mapped)
	if err != nil {
		return false, fault.New(fault.Internal, "cannot mount the container's root: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return false, fault.New(fault.Internal, "cannot mount the container's root: %w", os.NewSyscallError("move_mount", err))
	}
	return true, nil
}

// detachedRoot makes the mount.
func detachedRoot(r supervise.Rootfs, mapped bool) (fd int, err error) {
	attr := 0
	if r.ReadOnly {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	if r.Dir != "" {
		if mapped {
			return overlayfs.BindMapped(r.Dir, attr, userNSFile)
		}
		return overlayfs.Bind(r.Dir, attr)
	}
	if r.Volatile {
		// The kernel marks such a root so that nobody mounts it again and takes
		// it for whole; here it is only ever the same boot's.
		if err := os.RemoveAll(filepath.Join(r.Work, "work", "incompat")); err != nil {
			return -1, err
		}
	}
	o := overlayfs.Overlay{Lower: r.Lower, Upper: r.Upper, Work: r.Work, Volatile: r.Volatile, Label: r.Label}
	if mapped {
		o.Users = &overlayfs.Users{FD: userNSFile, UID: r.Users.UID, GID: r.Users.GID}
	}
	return overlayfs.Mount(o, attr)
}

// mountShm mounts another container's /dev/shm at target, in this process's
// mount namespace only.
func mountShm(shm *os.File, target string) error {
	if err := os.Mkdir(target, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	if err := unix.MoveMount(int(shm.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fault.New(fault.Internal, "cannot mount the other container's /dev/shm: %w", os.NewSyscallError("move_mount", err))
	}
	return nil
}
