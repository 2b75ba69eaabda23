package ocirun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
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
	pid    int
	pidfd  int
	flags  uint64
	cgroup int
	born   []join // namespaces that the cloning thread enters
	word   uint64 // that came with the last record

	elsewhere func() error // opens another v2 group when the kernel refuses the first
}

// newAttempt opens the socket and prepares the descriptors that every process
// needs. Those of the child's own must not be where extra files go.
func newAttempt(spec *specs.Spec, proc *specs.Process, stdio [3]*os.File, console *os.File, extra []*os.File, fresh bool) (*attempt, error) {
	a := &attempt{sync: -1, pid: 0, pidfd: -1, cgroup: -1}
	a.b = &builder{program: newProgram(), spec: spec, warn: func(string) {}, isDir: isDir, rootTree: -1, fifo: -1, initFD: -1, console: -1, sync: -1,
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
			a.b.chown[i] = !(st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3))
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
		a.b.stdio[i] = null
	}
	return nil
}

// launch places the program and clones the child.
func (a *attempt) launch() (err error) {
	if a.arena, err = place(a.b.program, a.b.initFD); err != nil {
		return err
	}
	a.pid, a.pidfd, err = a.arena.start(a.flags, a.cgroup, a.born)
	if errors.Is(err, unix.EBUSY) && a.elsewhere != nil && a.elsewhere() == nil {
		a.pid, a.pidfd, err = a.arena.start(a.flags, a.cgroup, a.born)
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
	a.closeOpened()
	for _, fd := range []int{a.sync, a.pidfd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if a.arena != nil {
		a.arena.free()
	}
}

func (a *attempt) closeOpened() {
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

// ReadSpec reads the config.json of a bundle.
func ReadSpec(bundle string) (*specs.Spec, error) { return ReadConfig(bundle, "") }

// ReadConfig reads the configuration of a bundle from a file of another name.
func ReadConfig(bundle, config string) (*specs.Spec, error) {
	if config == "" {
		config = "config.json"
	}
	name := config
	if !filepath.IsAbs(name) {
		name = filepath.Join(bundle, name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, fault.New(fault.Invalid, "the bundle %s has no %s", bundle, config)
		}
		return nil, fault.New(fault.Invalid, "read the bundle's configuration: %w", err)
	}
	s := new(specs.Spec)
	if err := decodeSpec(b, s); err != nil {
		return nil, fault.New(fault.Invalid, "%s is not valid: %w", name, err)
	}
	return s, nil
}

// create is Create.
func create(ctx context.Context, o Options) (c *Container, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	spec := o.Spec
	if spec == nil {
		if spec, err = ReadConfig(o.Bundle, o.Config); err != nil {
			return nil, err
		}
	}
	if err := check(spec); err != nil {
		return nil, err
	}
	adjust, err := oomScore(spec.Process)
	if err != nil {
		return nil, err
	}
	a, err := newAttempt(spec, spec.Process, o.Stdio, o.Console, o.ExtraFiles, adjust != nil || joinsTime(spec))
	if err != nil {
		return nil, err
	}
	c = &Container{id: o.ID, bundle: o.Bundle, config: o.Config, spec: spec, pidfd: -1, sync: -1, created: time.Now()}
	defer func() {
		if err != nil {
			a.abort()
			c.undo()
			c = nil
		}
	}()
	if err = c.setUp(a, &o); err != nil {
		return c, err
	}
	if err = c.handshake(ctx, a); err != nil {
		return c, err
	}
	if adjust != nil {
		if err = writeProc(a.pid, "oom_score_adj", *adjust); err != nil {
			return c, err
		}
	}
	if o.StateDir != "" {
		if err = c.saveState(); err != nil {
			return c, err
		}
	}
	a.closeOpened()
	if a.b.initFD >= 0 { // the child executed its copy and needs this memory no more
		a.arena.free()
	}
	c.pid, c.pidfd, c.sync, c.arena, c.program = a.pid, a.pidfd, a.sync, a.arena, a.b.program
	return c, nil
}

// joinsTime tells whether a container enters a time namespace that exists.
func joinsTime(s *specs.Spec) bool {
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.TimeNamespace {
			return n.Path != ""
		}
	}
	return false
}

// setUp makes the control groups, builds the program and starts the child.
func (c *Container) setUp(a *attempt, o *Options) (err error) {
	b := a.b
	b.bundle, b.noPivot, b.noKeyring = o.Bundle, o.NoPivot, o.NoKeyring
	if o.Warn != nil {
		b.warn = o.Warn
	}
	if o.NoPivot {
		if b.kernelMounts, err = kernelMounts(); err != nil {
			return err
		}
	}
	b.rootfs = c.spec.Root.Path
	if !filepath.IsAbs(b.rootfs) {
		b.rootfs = filepath.Join(o.Bundle, b.rootfs)
	}
	if dir, err := isDir(b.rootfs); err != nil || !dir {
		return fault.New(fault.Invalid, "the root file system %s is not a directory", b.rootfs)
	}
	if o.StateDir != "" {
		if err := c.claim(a, o); err != nil {
			return err
		}
	}
	filter := compile(c.spec.Linux.Seccomp)
	if c.group, err = cgroup.Create(groupPath(c.spec, o.ID), b.resources()); err != nil {
		return err
	}
	b.group = c.group
	if c.group.NoDevices {
		b.warn("linux.resources.devices has no effect: this runtime runs in a user namespace")
	}
	if b.tasks, err = c.group.TaskFiles(); err != nil {
		return err
	}
	a.opened = append(a.opened, b.tasks...)
	if a.cgroup, err = c.group.Open(); err != nil {
		return err
	}
	if a.cgroup >= 0 {
		a.opened = append(a.opened, a.cgroup)
	}
	if err := a.namespaces(); err != nil {
		return err
	}
	if err := filter(b); err != nil {
		return err
	}
	if environ(c.spec.Process.Env, "HOME") == "" {
		b.home = readHome(b.rootfs, c.spec.Process.User.UID)
	}
	h := c.spec.Hooks
	if hasInnerHooks(h) {
		if err := a.openInner(3 + len(o.ExtraFiles)); err != nil {
			return err
		}
	}
	b.hooks = h != nil && len(h.Prestart)+len(h.CreateRuntime) > 0
	if err := b.build(); err != nil {
		return err
	}
	return a.launch()
}

// resources are the limits without those that kernels no longer have, which the
// specification keeps and asks nobody to enforce.
func (b *builder) resources() *specs.LinuxResources {
	r := b.spec.Linux.Resources
	if r == nil || r.Memory == nil || r.Memory.Kernel == nil || *r.Memory.Kernel == 0 {
		return r
	}
	b.warn("linux.resources.memory.kernel has no effect: kernels have no such limit any more")
	with, memory := *r, *r.Memory
	memory.Kernel = nil
	with.Memory = &memory
	return &with
}

// groupPath is where the container's control groups are.
func groupPath(s *specs.Spec, id string) string {
	if s.Linux.CgroupsPath == "" {
		return "/" + id
	}
	return s.Linux.CgroupsPath
}

// compile makes the seccomp filter beside other work; the returned function
// waits for it and gives it to the builder.
func compile(s *specs.LinuxSeccomp) func(*builder) error {
	if s == nil {
		return func(*builder) error { return nil }
	}
	done := make(chan error, 1)
	var f *filter
	go func() {
		var err error
		f, err = compileFilter(s)
		done <- err
	}()
	return func(b *builder) error {
		if err := <-done; err != nil {
			return err
		}
		b.seccomp, b.seccompFlags = f.code, f.flags
		if b.listens() && s.ListenerPath == "" {
			return fault.New(fault.Invalid, "linux.seccomp.listenerPath is needed for the action %s", specs.ActNotify)
		}
		return nil
	}
}

// handshake serves the child until it waits for the start, or ctx ends.
func (c *Container) handshake(ctx context.Context, a *attempt) (err error) {
	release := a.heed(ctx)
	defer func() {
		release()
		if ctx.Err() != nil { // whatever came of it
			err = ctx.Err()
		}
	}()
	for {
		record, err := a.next(ctx)
		if err != nil {
			return err
		}
		c.pid = a.pid
		switch record {
		case recordMaps:
			err = writeMaps(a.pid, c.spec, a.b)
		case recordHooks:
			h := c.spec.Hooks
			if err = c.runHooks(ctx, "prestart", h.Prestart, specs.StateCreating); err == nil {
				err = c.runHooks(ctx, "createRuntime", h.CreateRuntime, specs.StateCreating)
			}
		default:
			if i := record - recordAsk; i >= 0 && i < len(a.b.requests) {
				err = a.b.requests[i](a)
			}
		case recordListener:
			err = c.handListener(ctx, a, specs.StateCreating)
		case recordChild:
			err = a.adopt(int(a.word))
		case recordInner:
			err = c.tellInner(a, specs.StateCreating)
		case recordReady:
			if a.b.inner.state >= 0 {
				if err := c.tellInner(a, specs.StateCreated); err != nil {
					return err
				}
			}
			if a.b.userNamespace() {
				return setLimits(a.pid, c.spec.Process)
			}
			return nil
		}
		if err == nil {
			err = a.proceed()
		}
		if err != nil {
			return err
		}
	}
}

// namespaces sorts the namespaces into those that the clone makes, those that
// the child enters and the pid namespace, which the cloning thread enters.
func (a *attempt) namespaces() error {
	b := a.b
	user := b.namespace(specs.UserNamespace)
	for i := range b.spec.Linux.Namespaces {
		n := &b.spec.Linux.Namespaces[i]
		flag := namespaceFlags[n.Type]
		if n.Path == "" {
			if n.Type != specs.CgroupNamespace && n.Type != specs.TimeNamespace {
				a.flags |= uint64(flag)
			}
			continue
		}
		fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fault.New(fault.Invalid, "open the %s namespace %s: %w", n.Type, n.Path, err)
		}
		a.opened = append(a.opened, fd)
		kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
		if err != nil || uintptr(kind) != flag {
			return fault.New(fault.Invalid, "%s is no %s namespace", n.Path, n.Type)
		}
		switch {
		case n.Type == specs.PIDNamespace:
			a.born = append(a.born, join{string(n.Type), flag, fd})
		case n.Type == specs.TimeNamespace: // needs memory of its own, so the executed init joins it
			b.timeNS, b.timeFD = true, fd
		case user != nil && n.Type != specs.UserNamespace && n.Type != specs.MountNamespace:
			a.born = append(a.born, join{string(n.Type), flag, fd}) // another user namespace may own it
		default:
			b.joins = append(b.joins, join{string(n.Type), flag, fd})
		}
	}
	if user != nil && user.Path != "" {
		b.again, a.flags = a.flags, 0
	}
	return a.openTrees()
}

// openTrees clones the root and the mounts' sources while the process may still
// reach them: the identity inside a user namespace may not, and id maps are not
// its to give. A source in the container's root is not there before its mounts.
func (a *attempt) openTrees() error {
	b := a.b
	open := func(path string, recursive bool) (int, error) {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, cloneFlags(recursive))
		if err != nil {
			return -1, fault.New(fault.Invalid, "open %s to mount it: %w", path, err)
		}
		a.opened = append(a.opened, fd)
		slave := unix.MountAttr{Propagation: unix.MS_SLAVE}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &slave); err != nil {
			return -1, fault.New(fault.Internal, "set the propagation of %s: %w", path, err)
		}
		return fd, nil
	}
	if b.userNamespace() {
		var err error
		if b.rootTree, err = open(b.rootfs, true); err != nil {
			return err
		}
	}
	b.trees = map[int]int{}
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		o, err := parseOptions(m)
		if err != nil {
			return err
		}
		if o.mapped(m) && !o.bind {
			return fault.New(fault.Invalid, "the mount %s has id maps, which only bind mounts have", m.Destination)
		}
		if !o.bind || !b.userNamespace() && !o.mapped(m) {
			continue
		}
		source := m.Source
		if !filepath.IsAbs(source) {
			source = filepath.Join(b.bundle, source)
		}
		tree, err := open(source, o.recursive)
		if err != nil {
			return err
		}
		if o.mapped(m) {
			if err := a.mapOwners(tree, m, &o); err != nil {
				return err
			}
		}
		b.trees[i] = tree
	}
	return nil
}

// writeMaps writes clock offsets and id maps of a child that waits.
func writeMaps(pid int, s *specs.Spec, b *builder) error {
	if b.isNew(specs.UserNamespace) {
		for _, m := range []struct {
			file string
			maps []specs.LinuxIDMapping
		}{{"uid_map", s.Linux.UIDMappings}, {"gid_map", s.Linux.GIDMappings}} {
			if err := writeProc(pid, m.file, mapText(m.maps)); err != nil {
				return err
			}
		}
	}
	var offsets strings.Builder
	for _, clock := range []string{"monotonic", "boottime"} {
		if o, ok := s.Linux.TimeOffsets[clock]; ok {
			fmt.Fprintf(&offsets, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	if offsets.Len() > 0 {
		return writeProc(pid, "timens_offsets", offsets.String())
	}
	return nil
}

// mapText writes id maps as uid_map of user_namespaces(7) takes them.
func mapText(maps []specs.LinuxIDMapping) string {
	var text strings.Builder
	for _, r := range maps {
		fmt.Fprintf(&text, "%d %d %d\n", r.ContainerID, r.HostID, r.Size)
	}
	return text.String()
}

// writeProc writes a file of a process in one call.
func writeProc(pid int, name, text string) error {
	path := fmt.Sprintf("/proc/%d/%s", pid, name)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
	if err != nil {
		return fault.New(fault.Internal, "set %s of the container's init to %q: %w", name, text, err)
	}
	return nil
}

// oomScore gives the oom_score_adj to write, nil when the process inherits the
// wanted value. It cannot be written while memory is shared, for the kernel
// changes all sharers.
func oomScore(p *specs.Process) (*string, error) {
	if p.OOMScoreAdj == nil {
		return nil, nil
	}
	want := fmt.Sprint(*p.OOMScoreAdj)
	have, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return nil, fault.New(fault.Internal, "read oom_score_adj: %w", err)
	}
	if strings.TrimSpace(string(have)) == want {
		return nil, nil
	}
	return &want, nil
}
