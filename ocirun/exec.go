package ocirun

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// exec is Exec. The cloning thread enters the pid namespace; the child, a
// process of one thread, enters all others, a user namespace included.
func (c *Container) exec(ctx context.Context, o ExecOptions) (proc *Process, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Process == nil {
		return nil, fault.New(fault.Invalid, "there is no process to execute")
	}
	if err := checkProcess(o.Process); err != nil {
		return nil, err
	}
	if !c.alive() {
		return nil, fault.New(fault.Conflict, "cannot exec in a stopped container")
	}
	adjust, err := oomScore(o.Process)
	if err != nil {
		return nil, err
	}
	whole, err := c.specification()
	if err != nil {
		return nil, err // what isolates the new process stands there
	}
	spec, process := *whole, *o.Process
	if own := spec.Process; own != nil { // what the container has and the new process does not name
		if process.Scheduler == nil {
			process.Scheduler = own.Scheduler
		}
		if process.IOPriority == nil {
			process.IOPriority = own.IOPriority
		}
		if process.ExecCPUAffinity == nil {
			process.ExecCPUAffinity = own.ExecCPUAffinity
		}
	}
	spec.Process = &process
	separate, err := c.separate()
	if err != nil {
		return nil, err
	}
	a, err := newAttempt(stepsOfExec, &spec, o.Process, o.Stdio, o.Console, o.ExtraFiles, adjust != nil || separate[specs.TimeNamespace])
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.abort()
		}
	}()
	if o.Warn != nil {
		a.b.warn = o.Warn
	}
	if err = c.chooseGroup(a, o.Cgroups); err != nil {
		return nil, err
	}
	if err = c.buildExec(a, separate); err != nil {
		return nil, err
	}
	if err = a.launch(); err != nil {
		return nil, err
	}
	if err = c.hear(ctx, a); err != nil {
		return nil, err
	}
	if adjust != nil {
		if err = writeProc(a.pid, "oom_score_adj", *adjust); err != nil {
			return nil, err
		}
	}
	if a.b.userNamespace() {
		if err = setLimits(a.pid, o.Process); err != nil {
			return nil, err
		}
		a.givePipes(o.Process)
	}
	if err = c.enterRdt(a.pid); err != nil {
		return nil, err
	}
	if err = a.proceed(); err != nil {
		return nil, err
	}
	a.finish()
	return &Process{pid: a.pid}, nil
}

// hear serves a further process until it waits for its start, or ctx ends.
func (c *Container) hear(ctx context.Context, a *attempt) (err error) {
	release := a.heed(ctx)
	defer func() {
		release()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}()
	record, err := a.next(ctx)
	if err == nil && record == recordChild {
		if err = a.adopt(int(a.word)); err == nil {
			err = a.proceed()
		}
		if err == nil {
			record, err = a.next(ctx)
		}
	}
	if err != nil || record != recordListener {
		return err
	}
	if err := c.handListener(ctx, a, specs.StateRunning); err != nil {
		return err
	}
	if err := a.proceed(); err != nil {
		return err
	}
	_, err = a.next(ctx)
	return err
}

// finish waits until the child has executed and gives everything back.
func (a *attempt) finish() {
	if a.b.initFD < 0 && !a.apart {
		// The child still reads this memory; the socket ends when it has executed.
		var b [16]byte
		_, _ = retry(func() (int, error) { return unix.Read(a.sync, b[:]) })
	}
	a.closeOpened()
	unix.Close(a.sync)
	unix.Close(a.pidfd)
	a.arena.free()
	a.b.program.reuse()
}

// liveOnInChild has a child of the same parent go on, as only children are in a
// pid namespace that was joined. The first one leads a session, and can begin no
// other; the second can, by which they know who they are.
func (b *builder) liveOnInChild() {
	first, record := b.label(), b.words(num(recordChild), num(0))
	flags := uint64(unix.CLONE_VM|unix.CLONE_PARENT|unix.CLONE_PARENT_SETTID) | uint64(unix.SIGCHLD)
	b.do("make a process in the pid namespace", "", unix.SYS_CLONE, num(flags), num(0), value{address, record.n + 8})
	second := b.label()
	b.do("start a session", "", unix.SYS_SETSID).then(second).when(unix.EPERM, first)
	b.here(first)
	b.do("report", "", unix.SYS_WRITE, num(b.sync), record, num(16)).ignore()
	b.jump(b.exit)
	b.here(second)
	b.pause()
}

// separate tells in which namespaces init lives that are not this process's. It is
// an error not to know of one: the new process would stay in this process's.
func (c *Container) separate() (map[specs.LinuxNamespaceType]bool, error) {
	own, err := ownNamespaces()
	if err != nil {
		return nil, err
	}
	its, err := namespacesOf(strconv.Itoa(c.pid))
	if err != nil {
		return nil, err
	}
	list := make(map[specs.LinuxNamespaceType]bool, len(own))
	for t, name := range own {
		if its[t] == "" { // a zombie has none
			return nil, fault.New(fault.Conflict, "cannot exec in a stopped container")
		}
		list[t] = its[t] != name
	}
	return list, nil
}

// namesOfOwn are the namespaces that this process has, once they were read.
var namesOfOwn atomic.Pointer[map[specs.LinuxNamespaceType]string]

// ownNamespaces are asked of the calling thread, as one that is in others for a
// while is locked to whoever brought it there.
func ownNamespaces() (map[specs.LinuxNamespaceType]string, error) {
	if own := namesOfOwn.Load(); own != nil {
		return *own, nil
	}
	own, err := namespacesOf("thread-self")
	if err == nil {
		namesOfOwn.Store(&own)
	}
	return own, err
}

// namespacesOf reads what namespaces a process has, of those that the kernel knows.
// Its directory is looked for once: that is the most of each look.
func namespacesOf(process string) (map[specs.LinuxNamespaceType]string, error) {
	dir, err := unix.Open("/proc/"+process+"/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "open the namespaces of process %s: %w", process, err)
	}
	defer unix.Close(dir)
	list := make(map[specs.LinuxNamespaceType]string, len(namespaceFlags))
	for t := range namespaceFlags {
		var b [64]byte
		switch n, err := unix.Readlinkat(dir, namespaceFile(t), b[:]); err {
		case nil:
			list[t] = string(b[:n])
		case unix.ENOENT:
		default:
			return nil, fault.New(fault.Internal, "read the %s namespace of process %s: %w", t, process, err)
		}
	}
	return list, nil
}

// namespaceFile is what /proc/PID/ns calls a namespace of the kind.
func namespaceFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.MountNamespace:
		return "mnt"
	case specs.NetworkNamespace:
		return "net"
	}
	return string(t)
}

// chooseGroup opens the control groups of a further process.
func (c *Container) chooseGroup(a *attempt, paths []string) (err error) {
	b := a.b
	if b.group, err = c.group.Sub(paths); err != nil {
		return err
	}
	if b.tasks, err = b.group.TaskFiles(); err != nil {
		return err
	}
	a.opened = append(a.opened, b.tasks...)
	// A container that comes to its limit has the kernel kill whoever shares memory
	// with a process in its groups, which would be this process.
	a.apart = c.group.MayStarve()
	if !c.group.Unified {
		if a.cgroup, err = b.group.Open(); a.cgroup >= 0 { // beside v1, for company
			a.opened = append(a.opened, a.cgroup)
			a.elsewhere = func() error { a.cgroup = -1; return nil }
		}
		return err
	}
	if c.group.None() {
		return nil
	}
	own := func() error { // a group with controllers for its children takes no process
		g, err := c.group.Of(c.pid)
		if err == nil {
			a.cgroup, err = g.Open()
		}
		if err == nil {
			a.opened = append(a.opened, a.cgroup)
		}
		return err
	}
	if len(paths) == 0 {
		a.elsewhere = own
	}
	if a.cgroup, err = b.group.Open(); err == nil {
		a.opened = append(a.opened, a.cgroup)
	} else if len(paths) == 0 && errors.Is(err, unix.ENOENT) {
		return own()
	}
	return err
}

// buildExec makes the program of a further process.
func (c *Container) buildExec(a *attempt, separate map[specs.LinuxNamespaceType]bool) (err error) {
	b := a.b
	b.bundle = c.bundle
	target, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return fault.New(fault.Conflict, "cannot exec in a stopped container")
	}
	a.opened = append(a.opened, target)
	if err := compile(c.known().Linux.Seccomp)(b); err != nil {
		return err
	}
	toRoot, err := c.keepRoot(a)
	if err != nil {
		return err
	}
	var flags, within uintptr
	b.spec.Linux = &specs.Linux{}
	for _, t := range [...]specs.LinuxNamespaceType{specs.UserNamespace, specs.MountNamespace, specs.UTSNamespace,
		specs.IPCNamespace, specs.NetworkNamespace, specs.CgroupNamespace, specs.PIDNamespace, specs.TimeNamespace} {
		if !separate[t] {
			continue
		}
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: "/"})
		switch t {
		case specs.PIDNamespace:
			if ordinary() { // who may enter it only from the user namespace
				within = namespaceFlags[t]
				continue
			}
			a.born = append(a.born, join{string(t), namespaceFlags[t], target})
		case specs.TimeNamespace:
			b.timeNS = true
		default:
			flags |= namespaceFlags[t]
		}
	}
	if environ(b.spec.Process.Env, "HOME") == "" {
		b.home = readHome(fmt.Sprintf("/proc/%d/root", c.pid), b.spec.Process.User.UID)
	}
	b.begin()
	cpus := b.spec.Process.ExecCPUAffinity
	if cpus == nil {
		cpus = &specs.CPUAffinity{}
	}
	if cpus.Initial != "" {
		if err := b.affinity(cpus.Initial); err != nil {
			return err
		}
	}
	b.do("start a session", "", unix.SYS_SETSID)
	b.keyLabel(b.spec.Process)
	b.do("join the session keyring", "", unix.SYS_KEYCTL, num(unix.KEYCTL_JOIN_SESSION_KEYRING), b.str("_ses")).ignore()
	b.enterGroups()
	if cpus.Final != "" || cpus.Initial == "" {
		if err := b.affinity(cpus.Final); err != nil {
			return err
		}
	}
	if err := b.taskAttributes(b.spec.Process, c.known().Linux); err != nil {
		return err
	}
	if flags|within != 0 {
		b.do("join the container's namespaces", "", unix.SYS_SETNS, num(target), num(flags|within))
	}
	if within != 0 {
		b.liveOnInChild()
	}
	toRoot()
	if b.userNamespace() {
		b.becomeRoot()
	}
	if b.timeNS {
		// This needs memory of its own, so it comes after the execution of init.
		b.timeFD = target
	}
	if b.spec.Process.Terminal {
		b.openTerminal(false)
	}
	if err := b.finishProcess(b.spec.Process); err != nil {
		return err
	}
	b.end()
	return nil
}
