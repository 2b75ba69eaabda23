package btrfs

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls of linux/btrfs.h for quotas.
const (
	ioctlQuota      = 3<<30 | 16<<16 | 0x94<<8 | 40
	ioctlQuotaLimit = 2<<30 | 48<<16 | 0x94<<8 | 43

	quotaEnable = 1
)

// Counted is which bytes of a subvolume a limit is about.
type Counted uint64

// The flags of limits.
const (
	All       Counted = 1 << 0 // that it holds
	Exclusive Counted = 1 << 1 // that it shares with no other
)

// quotaArgs is struct btrfs_ioctl_quota_ctl_args.
type quotaArgs struct{ command, status uint64 }

// quotaLimitArgs is struct btrfs_ioctl_qgroup_limit_args; group 0 is that of the
// subvolume which is open.
type quotaLimitArgs struct {
	group, flags, maxReferenced, maxExclusive, reservedReferenced, reservedExclusive uint64
}

// Limit bounds the bytes of an open subvolume. The first limit of all switches the file
// system's quotas on.
func Limit(subvolume int, what Counted, bytes uint64) error {
	args := quotaLimitArgs{flags: uint64(what), maxReferenced: bytes, maxExclusive: bytes}
	err := ioctl(subvolume, ioctlQuotaLimit, unsafe.Pointer(&args))
	if errors.Is(err, unix.ENOTCONN) {
		on := quotaArgs{command: quotaEnable}
		if err := ioctl(subvolume, ioctlQuota, unsafe.Pointer(&on)); err != nil {
			return pathError("enable quotas", "btrfs", err)
		}
		err = ioctl(subvolume, ioctlQuotaLimit, unsafe.Pointer(&args))
	}
	return pathError("limit subvolume", "btrfs", err)
}
