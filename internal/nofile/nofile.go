// Package nofile finds the limit of open files that the program was started
// with. Package syscall raises it when it is initialised, and gives the old one
// back only to the children that it executes.
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
