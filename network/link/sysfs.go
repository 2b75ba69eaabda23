package link

import (
	"os"

	"golang.org/x/sys/unix"
)

// sysfs makes the sysfs of the calling thread's network namespace, read-only, and
// does not mount it. There is one for each namespace: the kernel looks for it among
// all of the machine, the newest first, whenever somebody mounts one, which beside a
// thousand containers takes half a millisecond when there is none. As long as the
// descriptor is open every mount shows this one, and is read-only whatever it asks
// for.
func sysfs() (*os.File, error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	if err = unix.FsconfigSetFlag(fs, "ro"); err == nil {
		err = unix.FsconfigCreate(fs)
	}
	if err != nil {
		unix.Close(fs)
		return nil, os.NewSyscallError("fsconfig", err)
	}
	return os.NewFile(uintptr(fs), "sysfs"), nil
}
