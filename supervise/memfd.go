package supervise

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// sealedCopy copies an executable into a memory file that nobody can change
// any more, however privileged: a container that reaches /proc/PID/exe of its
// supervising process finds nothing that it could write. An upgrade of the
// file on disk does not mix versions either.
func sealedCopy(path string) (*os.File, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the supervising program: %w", err)
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("tare-supervise", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("tare-supervise", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "tare-supervise")
	defer f.Close()
	if _, err := io.Copy(f, src); err != nil {
		return nil, fmt.Errorf("cannot copy the supervising program: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("cannot seal the supervising program: %w", err)
	}
	// Read-only, by a descriptor of its own: who holds one for writing may not
	// execute it.
	exe, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	return exe, nil
}
