package ocirun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// attempt is a process that is being made: what must be undone or closed
// when it fails, and what is closed in any case.
type attempt struct {
	b      *builder
	opened []int // closed when the attempt is over
	files  []*os.File
	arena  *arena
	sync   int // the parent's end
	gate   int // the same of the gate; -1 without
	pid    int
	pidfd  int
	flags  uint64
	cgroup int
	born   []join // namespaces that the cloning thread enters
	word   uint64 // that came with the last record
	apart  bool   // the child has memory of its own: the kernel may have it die for want of memory
	inside *routeSocket
	moved  []moved
	before uint64 // mountID of the root before init was there, if others see its mounts

	elsewhere func() error // opens another v2 group when the kernel refuses the first
}

// How many steps the program of an init and of a further process have at most,
// as a rule.
const (
	stepsOfInit = 448
	stepsOfExec = 192
)

// newAttempt opens the socket and prepares the descriptors that every process
// needs. Those of the child's own must not be where extra files go.
func newAttempt(steps int, spec *specs.Spec, proc *specs.Process, stdio [3]*os.File, console *os.File, extra []*os.File, fresh bool) (*attempt, error) {
	a := &attempt{sync: -1, gate: -1, pid: 0, pidfd: -1, cgroup: -1}
	a.b = &builder{program: newProgram(steps), spec: spec, warn: func(string) {}, isDir: isDir, rootTree: -1, fifo: -1, initFD: -1, console: -1, sync: -1, proc: -1,
		inner: innerHooks{-1, -1}}
	if err := a.prepare(proc, stdio, console, extra, fresh); err != nil {
		a.abort()
		return nil, err
	}
	return a, nil
}

func (a *attempt) prepare(proc *specs.Process, stdio [3]*os.File, console *os.File, extra []*os.File, fresh bool) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Internal, "make the socket to the container's init: %w", err)
	}
	a.sync = pair[0]
	a.b.peer = pair[0]
	floor := 3 + len(extra)
	if a.b.sync, err = a.above(pair[1], floor); err != nil {
		return err
	}
	if fresh || !sealed() {
		fd, err := initFile()
		if err != nil {
			return err
		}
		if a.b.initFD, err = a.above(fd, floor); err != nil {
			return err
		}
	}
	if err := a.openProc(proc, floor); err != nil {
		return err
	}
	for _, f := range extra {
		a.b.extra = append(a.b.extra, int(f.Fd()))
	}
	if proc.Terminal {
		if console == nil {
			return fault.New(fault.Invalid, "a process with a terminal needs a console socket")
		}
		a.b.console = int(console.Fd())
		return nil
	}
	return a.standard(stdio)
}

// above moves a descriptor that the child needs out of the way of extra files.
func (a *attempt) above(fd, floor int) (int, error) {
	a.opened = append(a.opened, fd)
	if fd >= floor {
		return fd, nil
	}
	up, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, floor)
	if err != nil {
		return -1, fault.New(fault.Internal, "copy a descriptor: %w", err)
	}
	a.opened = append(a.opened, up)
	return up, nil
}

func (a *attempt) standard(stdio [3]*os.File) error {
	null := -1
	for i, f := range stdio {
		if f != nil {
			fd := int(f.Fd())
			a.b.stdio[i] = fd
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return fault.New(fault.Invalid, "descriptor %d of the process cannot be used: %w", i, err)
			}
			a.b.null[i] = st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
			continue
		}
		if null < 0 {
			fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return fault.New(fault.Internal, "open /dev/null: %w", err)
			}
			null = fd
			a.opened = append(a.opened, fd)
		}
		a.b.stdio[i], a.b.null[i] = null, true
	}
	return nil
}

// launch places the program and clones the child.
func (a *attempt) launch() (err error) {
	flags := a.flags
	if !a.apart {
		flags |= unix.CLONE_VM
	}
	if a.arena, err = place(a.b.program, a.b.initFD, a.apart); err != nil {
		return err
	}
	a.pid, a.pidfd, err = a.arena.start(flags, a.cgroup, a.born)
	if errors.Is(err, unix.EBUSY) && a.elsewhere != nil && a.elsewhere() == nil {
		a.pid, a.pidfd, err = a.arena.start(flags, a.cgroup, a.born)
	}
	if errors.Is(err, unix.EBUSY) {
		err = fault.New(fault.Conflict, "adding pid of the process to cgroups: %w", err)
	}
	unix.Close(a.b.sync)
	a.forget(a.b.sync)
	return err
}

func (a *attempt) forget(fd int) {
	for i, o := range a.opened {
		if o == fd {
			a.opened = append(a.opened[:i], a.opened[i+1:]...)
			return
		}
	}
}

// heed ends the wait for what the child tells when ctx ends. The returned
// function ends that.
func (a *attempt) heed(ctx context.Context) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = unix.Shutdown(a.sync, unix.SHUT_RDWR)
		close(over)
	})
	return func() {
		if !stop() {
			<-over
		}
	}
}

// next reads what the child tells. A failed step becomes its sentence.
func (a *attempt) next(ctx context.Context) (int, error) {
	var rec [16]byte
	n, err := retry(func() (int, error) { return unix.Read(a.sync, rec[:]) })
	if err != nil {
		return 0, fault.New(fault.Internal, "hear from the container's init: %w", err)
	}
	if n < 16 {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return 0, fault.New(fault.Internal, "the container's init ended before it was ready%s", a.cause())
	}
	word, errno := binary.LittleEndian.Uint64(rec[:]), unix.Errno(binary.LittleEndian.Uint64(rec[8:]))
	base := uint64(uintptr(unsafe.Pointer(&a.arena.mem[0])))
	if word < 4096 {
		a.word = uint64(errno)
		return int(word), nil
	}
	i := int(word-base-stepsAt) / stepSize
	if i < 0 || i >= len(a.b.steps) {
		return 0, fault.New(fault.Internal, "the container's init failed at an unknown step: %w", errno)
	}
	kind := fault.Internal
	s := &a.b.steps[i]
	if s.nr == opRefuse || s.nr == unix.SYS_CHDIR {
		kind = fault.Invalid
	}
	return 0, fault.New(kind, "%s", a.b.sentence(i, errno)+a.hookFailure(i))
}

// cause says how a child ended that told nothing.
func (a *attempt) cause() string {
	status, err := wait(a.pid)
	a.pid = 0
	if err != nil {
		return ""
	}
	if status.Signaled() {
		return fmt.Sprintf(" (signal: %v)", status.Signal())
	}
	return fmt.Sprintf(" (exit code %d)", status.ExitStatus())
}

func (a *attempt) proceed() error {
	_, err := retry(func() (int, error) { return 1, unix.Send(a.sync, []byte{1}, unix.MSG_NOSIGNAL) })
	if err == unix.EPIPE {
		return fault.New(fault.Internal, "the container's init ended before it was ready%s", a.cause())
	}
	if err != nil {
		return fault.New(fault.Internal, "release the container's init: %w", err)
	}
	return nil
}

// adopt goes on with a child that the first one made for itself.
func (a *attempt) adopt(pid int) error {
	first := a.pid
	a.pid = pid
	unix.Close(a.pidfd)
	var err error
	if a.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		a.pidfd = -1
		return fault.New(fault.Internal, "open the container's init: %w", err)
	}
	_, err = wait(first)
	return err
}

// abort ends the child and gives everything back.
func (a *attempt) abort() {
	if a.pid > 0 {
		_ = unix.Kill(a.pid, unix.SIGKILL)
		_, _ = wait(a.pid)
	}
	a.returnDevices()
	a.closeOpened()
	for _, fd := range []int{a.sync, a.gate, a.pidfd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if a.arena != nil {
		a.arena.free()
	}
}

func (a *attempt) closeOpened() {
	if a.inside != nil {
		a.inside.close()
		a.inside, a.moved = nil, nil
	}
	cgroup.Close(a.opened)
	a.opened = nil
	runtime.KeepAlive(a.files)
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

func wait(pid int) (ExitStatus, error) {
	var ws unix.WaitStatus
	_, err := retry(func() (int, error) { return unix.Wait4(pid, &ws, 0, nil) })
	if err != nil {
		return ExitStatus{}, fault.New(fault.Internal, "wait for process %d: %w", pid, err)
	}
	return ExitStatus{waitStatus(ws)}, nil
}
