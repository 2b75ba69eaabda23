package keeper

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// child is a child process behind a pidfd, which waits in the poller and takes
// no thread.
type child struct {
	id int
	f  *os.File
	rc syscall.RawConn
}

func openChild(pid int) (*child, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &child{pid, f, rc}, nil
}

func (c *child) pid() int { return c.id }

// await waits for the end of the child and leaves it to be collected.
func (c *child) await() {
	_ = c.rc.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err != nil && err != unix.EINTR || n > 0
	})
}

// wait collects the child.
func (c *child) wait() (int, error) {
	var info struct { // siginfo_t of 64-bit systems
		signo, errno, code, _ int32
		pid, uid, status      int32
		_                     [100]byte
	}
	var errno syscall.Errno
	err := c.rc.Read(func(fd uintptr) bool {
		for {
			_, _, errno = unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, fd, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG, 0, 0)
			if errno != unix.EINTR {
				break
			}
		}
		return errno != unix.EAGAIN && (errno != 0 || info.pid != 0)
	})
	defer c.f.Close()
	if err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, os.NewSyscallError("waitid", errno)
	}
	const exited = 1 // CLD_EXITED
	if info.code == exited {
		return int(info.status), nil
	}
	return 128 + int(info.status), nil
}

// signal sends a signal to the child and never to another process.
func (c *child) signal(sig syscall.Signal) error {
	var serr error
	if err := c.rc.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return unix.ESRCH
	}
	return serr
}
