package link

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// interfaces makes the settings of interfaces in the calling thread's namespace. In
// one instance of procfs the directories of all namespaces have the same names in
// the same place, and the kernel goes through all that it remembers for each word
// of a path: with a thousand containers a setting costs a millisecond. So they are
// reached through an instance of our own, mounted nowhere, which is given up for
// another when it has served some namespaces.
var interfaces procSys

type procSys struct {
	mu    sync.Mutex
	mount int // 0 for none
	left  int // settings until the next instance
}

// procSysUses is how many settings an instance serves. To make one costs about as
// much as two of them.
const procSysUses = 64

// write writes a file below /proc/sys/net.
func (p *procSys) write(name, value string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		p.renew()
	}
	p.left--
	path := "/proc/sys/net/" + name
	if p.mount == 0 {
		return os.WriteFile(path, []byte(value), 0)
	}
	fd, err := unix.Openat(p.mount, "sys/net/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// renew makes an instance in place of the one that there is. Where we may not, as
// inside of a container, there is none.
func (p *procSys) renew() {
	if p.mount != 0 {
		unix.Close(p.mount)
	}
	p.mount, p.left = 0, procSysUses
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(fs)
	if unix.FsconfigCreate(fs) != nil {
		return
	}
	if fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC); err == nil {
		p.mount = fd
	}
}
