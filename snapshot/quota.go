package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// limiter is a driver, or what it makes trees by, that can bound what a
// container writes.
type limiter interface {
	limit(tree string, bytes uint64) error
}

// CanLimit is nil where Limit is supported, and otherwise says in Docker's words
// why it is not.
func (s *Store) CanLimit() error {
	if s.limiter() != nil {
		return nil
	}
	if s.name == Overlay && fileSystem(s.root) == "xfs" {
		return fault.New(fault.NotImplemented, "--storage-opt is supported with the storage driver btrfs only: the project quotas of xfs are not used yet")
	}
	return fault.New(fault.Invalid, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
}

func (s *Store) limiter() limiter {
	if w, ok := s.driver.(whole); ok {
		l, _ := w.trees.(limiter)
		return l
	}
	return nil
}

// Limit bounds what the container itself may write, in bytes: not what its image
// brought. It holds from now on, whatever the daemon does.
func (s *Store) Limit(id string, bytes uint64) error {
	if err := s.CanLimit(); err != nil {
		return err
	}
	return s.limiter().limit(filepath.Join(s.path("active", id), "fs"), bytes)
}

// The ioctls of linux/btrfs.h for quotas.
const (
	ioctlQuota      = 3<<30 | 16<<16 | 0x94<<8 | 40
	ioctlQuotaLimit = 2<<30 | 48<<16 | 0x94<<8 | 43

	quotaEnable       = 1
	quotaMaxExclusive = 1 << 1
)

// quotaArgs is struct btrfs_ioctl_quota_ctl_args.
type quotaArgs struct{ command, status uint64 }

// quotaLimitArgs is struct btrfs_ioctl_qgroup_limit_args; group 0 is that of the
// subvolume which is open.
type quotaLimitArgs struct {
	group, flags, maxReferenced, maxExclusive, reservedReferenced, reservedExclusive uint64
}

// limit bounds what the subvolume shares with no other. The first limit of all
// switches the file system's quotas on, as Docker does.
func (b btrfs) limit(tree string, bytes uint64) error {
	return in(tree, func(dir int) error {
		args := quotaLimitArgs{flags: quotaMaxExclusive, maxExclusive: bytes}
		err := ioctl(dir, ioctlQuotaLimit, unsafe.Pointer(&args))
		if errors.Is(err, unix.ENOTCONN) {
			on := quotaArgs{command: quotaEnable}
			if err := ioctl(dir, ioctlQuota, unsafe.Pointer(&on)); err != nil {
				return &os.PathError{Op: "enable quotas", Path: tree, Err: err}
			}
			err = ioctl(dir, ioctlQuotaLimit, unsafe.Pointer(&args))
		}
		return pathError("limit subvolume", tree, err)
	})
}
