// Package quota bounds what a tree of files may take on disk: by the quota group of
// a subvolume on btrfs, by a project quota on XFS and ext4 (quotactl(2)).
//
// A project is a number that a directory and all that is made in it bear. Which
// numbers are taken, the file system itself knows: nothing is kept of them here.
package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/btrfs"
)

// Unsupported says why nothing can be bounded here, and what to do.
type Unsupported string

func (u Unsupported) Error() string { return string(u) }

// Check is nil where Set works for new trees in the open directory, and Unsupported
// elsewhere.
func Check(dir *os.File) error {
	fd := int(dir.Fd())
	kind, err := fileSystem(fd)
	if err != nil || kind == "btrfs" {
		return err
	}
	if kind != "xfs" && kind != "ext4" {
		return Unsupported(fmt.Sprintf("%s lies on %s, which has no quotas for directories: use XFS or ext4 mounted with prjquota, or btrfs", dir.Name(), kind))
	}
	flags, err := state(fd)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return Unsupported(fmt.Sprintf("this kernel has no project quotas for %s, on which %s lies: it is built without %s", kind, dir.Name(), option[kind]))
	case errors.Is(err, unix.ESRCH):
		flags = 0
	case err != nil:
		return os.NewSyscallError("quotactl_fd", err)
	}
	if flags&(projectCounted|projectEnforced) != projectCounted|projectEnforced {
		return Unsupported(fmt.Sprintf("the %s file system of %s is mounted without project quotas: %s", kind, dir.Name(), remedy[kind]))
	}
	return nil
}

// option is what a kernel needs, and remedy what a file system does.
var (
	option = map[string]string{"xfs": "CONFIG_XFS_QUOTA", "ext4": "CONFIG_QUOTA and CONFIG_QFMT_V2"}
	remedy = map[string]string{"xfs": "mount it with -o prjquota", "ext4": "give it the feature by tune2fs -O project,quota and mount it with -o prjquota"}
)

// Set bounds the open directory, which is empty: a subvolume, if on btrfs.
func Set(dir *os.File, bytes uint64) error { return SetAll(bytes, dir) }

// SetAll bounds what several empty directories of one file system hold together;
// of btrfs there is but one.
func SetAll(bytes uint64, dirs ...*os.File) error {
	dir := dirs[0]
	fd := int(dir.Fd())
	if btrfs.Is(fd) {
		return btrfs.Limit(fd, btrfs.All, bytes)
	}
	project, err := freeProject(fd)
	if err == nil {
		// The limit first: without it the directory would be one without.
		err = limit(fd, project, bytes)
		for i := 0; i < len(dirs) && err == nil; i++ {
			err = setProject(int(dirs[i].Fd()), project)
		}
	}
	if err != nil {
		return &os.PathError{Op: "bound", Path: dir.Name(), Err: err}
	}
	return nil
}

// Clear frees the project of an open directory that Set has bounded and that is
// about to be removed. The project that all around it has is somebody else's: the
// administrator's, or that of a container that the daemon runs in. A subvolume's
// group goes with it.
func Clear(dir *os.File) error {
	fd := int(dir.Fd())
	if kind, err := fileSystem(fd); err != nil || kind != "xfs" && kind != "ext4" {
		return err
	}
	parent, err := unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open the parent of", Path: dir.Name(), Err: err}
	}
	defer unix.Close(parent)
	var own, around attributes
	if err := ioctl(fd, getAttributes, &own); err != nil || own.project == 0 {
		return nil // no project, nothing to free
	}
	if err := ioctl(parent, getAttributes, &around); err != nil || around.project == own.project {
		return err
	}
	return limit(fd, own.project, 0)
}

func fileSystem(fd int) (string, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return "", os.NewSyscallError("fstatfs", err)
	}
	switch uint32(st.Type) {
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", nil
	case unix.TMPFS_MAGIC:
		return "tmpfs", nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs", nil
	}
	return fmt.Sprintf("the file system %#x", uint32(st.Type)), nil
}

// attributes is struct fsxattr of linux/fs.h.
type attributes struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

const (
	getAttributes = 2<<30 | 28<<16 | 'X'<<8 | 31 // FS_IOC_FSGETXATTR
	setAttributes = 1<<30 | 28<<16 | 'X'<<8 | 32 // FS_IOC_FSSETXATTR
	inherited     = 0x200                        // FS_XFLAG_PROJINHERIT
)

func ioctl(fd int, request uintptr, arg *attributes) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return errno
	}
	return nil
}

func setProject(fd int, project uint32) error {
	var attr attributes
	if err := ioctl(fd, getAttributes, &attr); err != nil {
		return err
	}
	attr.project = project
	attr.flags |= inherited
	return ioctl(fd, setAttributes, &attr)
}

// The commands of linux/dqblk_xfs.h, which ext4 knows too, for projects.
const (
	projects = 2 // PRJQUOTA

	getQuota = ('X'<<8|3)<<8 | projects
	setLimit = ('X'<<8|4)<<8 | projects
	getState = ('X'<<8|8)<<8 | projects

	projectCounted  = 1 << 4
	projectEnforced = 1 << 5

	softBlocks, hardBlocks = 1 << 2, 1 << 3 // FS_DQ_BSOFT, FS_DQ_BHARD
)

// diskQuota is struct fs_disk_quota. Its blocks have 512 bytes.
type diskQuota struct {
	version                                int8
	flags                                  int8
	mask                                   uint16
	id                                     uint32
	hardBlocks, softBlocks                 uint64
	hardInodes, softInodes, blocks, inodes uint64
	_                                      [112 - 56]byte
}

func quotactl(fd int, command uint32, id uint32, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command), uintptr(id), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// state tells what of quotas is switched on.
func state(fd int) (flags uint16, err error) {
	var stat struct { // fs_quota_statv
		version int8
		_       byte
		flags   uint16
		_       [252]byte
	}
	stat.version = 1
	err = quotactl(fd, getState, 0, unsafe.Pointer(&stat))
	return stat.flags, err
}

// freeProject finds a number that no limit and no file has.
func freeProject(fd int) (uint32, error) {
	for range 100 {
		id := rand.Uint32N(1<<30) + 1<<30
		var q diskQuota
		err := quotactl(fd, getQuota, id, unsafe.Pointer(&q))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || err == nil && q.hardBlocks|q.softBlocks|q.hardInodes|q.softInodes|q.blocks|q.inodes == 0 {
			return id, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errors.New("no project number is free")
}

// limit bounds what a project takes; 0 takes the limit away.
func limit(fd int, project uint32, bytes uint64) error {
	q := diskQuota{version: 1, flags: projects, mask: hardBlocks | softBlocks, id: project}
	q.hardBlocks = (bytes + 511) / 512
	q.softBlocks = q.hardBlocks
	return quotactl(fd, setLimit, project, unsafe.Pointer(&q))
}
