// Package openat opens paths below a directory that others may be changing, by
// openat2(2).
package openat

import "golang.org/x/sys/unix"

// The two ways in which a path stays below its directory: InRoot takes the
// directory for the root, as chroot(2) does, and Beneath refuses with EXDEV what
// leads out of it. Links of /proc that lead anywhere are followed by neither.
const (
	InRoot  = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	Beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
)

// Rounds is how often a path is walked anew. The kernel gives up a walk through
// ".." with EAGAIN when any file of the machine is renamed or mounted meanwhile,
// so that it has to be bounded only for what answers EAGAIN always: a file system
// of somebody else's making.
const Rounds = 1 << 16

// Open opens name, which is not empty, below the directory dir with the flags,
// O_CLOEXEC beside them, and RESOLVE_* flags. Its errors are the kernel's.
func Open(dir int, name string, flags, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for range Rounds {
		fd, err = unix.Openat2(dir, name, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}
