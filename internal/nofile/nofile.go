// Package nofile is about how many files a program can have open.
//
// It finds the limit that the program was started with. Package syscall raises
// it when it is initialised, and gives the old one back only to the children
// that it executes.
package nofile

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Original is RLIMIT_NOFILE (getrlimit(2)) as children of this program get it:
// the limit of a child that was stopped at its execve, before its first
// instruction. It costs the start of a process.
func Original() (limit unix.Rlimit, err error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess("/proc/self/exe", []string{"nofile"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		return limit, err
	}
	var status unix.WaitStatus
	if _, err = unix.Wait4(child.Pid, &status, 0, nil); err == nil {
		err = unix.Prlimit(child.Pid, unix.RLIMIT_NOFILE, nil, &limit)
	}
	_ = unix.Kill(child.Pid, unix.SIGKILL)
	_, waitErr := child.Wait()
	if err != nil {
		return limit, err
	}
	return limit, waitErr
}

// Room has the kernel make room for so many more files at once. It doubles a
// process's table each time that it is full, and with several threads each
// doubling waits for a grace period, 1 to 17 ms. What cannot be is left: the
// files find their room one by one.
func Room(files int) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	const (
		most  = 1 << 16 // 512 KiB of the kernel's memory
		spare = 64      // for what else is opened meanwhile
	)
	if last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, fd+min(files, most)+spare); err == nil {
		unix.Close(last)
	}
}
