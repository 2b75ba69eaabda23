// Command tare-init is process 1 of a container that asks for one (--init): it
// runs the given program as its child, passes signals on to it, reaps every
// orphan, and ends with the program's status.
//
//	tare-init -- PROGRAM [ARGUMENT...]
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 || args[0] == "--help" {
		fmt.Fprintln(os.Stderr, "tare-init: name the program to run: tare-init -- PROGRAM [ARGUMENT...]")
		os.Exit(125)
	}
	os.Exit(run(args))
}

// run starts the program in a process group of its own, in the foreground of
// the terminal if there is one, and waits until it has ended.
func run(args []string) int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // before the child exists, so that none is missed

	path, err := exec.LookPath(args[0])
	if err != nil {
		return failed(args[0], err)
	}
	attr := &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	child, err := os.StartProcess(path, args, attr)
	if err != nil {
		return failed(args[0], err)
	}
	if unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, child.Pid) == nil { // a terminal is the program's now
		_ = unix.Kill(-child.Pid, unix.SIGCONT) // should it have asked for it too early
	}
	for sig := range signals {
		switch sig {
		case unix.SIGCHLD:
			if code, ended := reap(child.Pid); ended {
				return code
			}
		case unix.SIGURG, unix.SIGTTIN, unix.SIGTTOU: // the Go runtime's own, and ours alone
		default:
			_ = unix.Kill(child.Pid, sig.(syscall.Signal))
		}
	}
	return 255
}

// reap collects every child that has ended, and tells when it was main.
func reap(main int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || pid <= 0:
			return code, ended
		case pid == main && status.Signaled():
			code, ended = 128+int(status.Signal()), true
		case pid == main:
			code, ended = status.ExitStatus(), true
		}
	}
}

// failed says why the program cannot run, with the shell's exit status.
func failed(name string, err error) int {
	fmt.Fprintf(os.Stderr, "tare-init: cannot run %s: %v\n", name, err)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return 127
	}
	return 126
}
