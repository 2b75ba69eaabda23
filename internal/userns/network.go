package userns

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
)

// NetworkIn makes a network namespace that belongs to a user namespace which is
// there already. Only a process of one thread may enter that (setns(2)): a copy of
// this one, without its threads, which enters, says so, and waits for its end.
func NetworkIn(user *os.File) (net *os.File, err error) {
	var pair [2]int
	if pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	thread.Own(func() bool {
		pid, errno := inside(int(user.Fd()), pair[0], pair[1])
		unix.Close(pair[1])
		if errno != 0 {
			err = os.NewSyscallError("clone", errno)
			return true
		}
		net, err = openNetwork(pid, pair[0])
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				return true
			}
		}
	})
	return net, err
}

// openNetwork opens the child's namespace when that has it.
func openNetwork(pid, socket int) (*os.File, error) {
	var told [8]byte
	n, err := unix.Read(socket, told[:])
	for err == unix.EINTR {
		n, err = unix.Read(socket, told[:])
	}
	if err != nil || n != len(told) {
		return nil, fmt.Errorf("make a network namespace in a user namespace: its maker ended: %w", err)
	}
	if errno := *(*uint64)(unsafe.Pointer(&told)); errno != 0 {
		return nil, fmt.Errorf("make a network namespace in a user namespace: %w", syscall.Errno(errno))
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
}

// inside makes the child. It shares nothing, has one thread, and makes system calls
// alone: no Go code runs in it that could wait for the threads that it does not have,
// nor a signal handler, for all signals are blocked. It ends with the other end of
// the socket.
//
//go:norace
//go:nosplit
func inside(user, theirs, own int) (pid int, err syscall.Errno) {
	var before uint64
	all := ^uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&before)), 8, 0, 0)
	id, _, err := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if err != 0 || id != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&before)), 0, 8, 0, 0)
		return int(id), err
	}
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(theirs), 0, 0)
	_, _, failed := syscall.RawSyscall(unix.SYS_SETNS, uintptr(user), unix.CLONE_NEWUSER, 0)
	if failed == 0 {
		_, _, failed = syscall.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_NEWNET, 0, 0)
	}
	said := uint64(failed)
	syscall.RawSyscall(unix.SYS_WRITE, uintptr(own), uintptr(unsafe.Pointer(&said)), 8)
	syscall.RawSyscall(unix.SYS_READ, uintptr(own), uintptr(unsafe.Pointer(&said)), 8)
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
