package treecopy

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// utimensat is futimens(3), which package unix has only by a path.
func utimensat(fd int, times *[2]unix.Timespec) error {
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(times)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
