package ocirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

// ReadSpec reads the config.json of a bundle.
func ReadSpec(bundle string) (*specs.Spec, error) { return ReadConfig(bundle, "") }

// ReadConfig reads the configuration of a bundle from a file of another name.
func ReadConfig(bundle, config string) (*specs.Spec, error) {
	s, _, err := ReadBundle(bundle, config)
	return s, err
}

// ReadBundle gives the configuration of a bundle and the text that it was read
// from, which is not to be changed.
func ReadBundle(bundle, config string) (*specs.Spec, []byte, error) {
	if config == "" {
		config = "config.json"
	}
	name := config
	if !filepath.IsAbs(name) {
		name = filepath.Join(bundle, name)
	}
	b, err := procfs.Read(name)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil, fault.New(fault.Invalid, "the bundle %s has no %s", bundle, config)
		}
		return nil, nil, fault.New(fault.Invalid, "read the bundle's configuration: %w", err)
	}
	s := new(specs.Spec)
	if err := decodeSpec(b, s); err != nil {
		return nil, nil, fault.New(fault.Invalid, "%s is not valid: %w", name, err)
	}
	return s, b, nil
}

// create is Create.
func create(ctx context.Context, o Options) (c *Container, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	spec := o.Spec
	if spec == nil {
		if spec, o.Text, err = ReadBundle(o.Bundle, o.Config); err != nil {
			return nil, err
		}
	}
	if err := checkRootless(spec); err != nil {
		return nil, err
	}
	if err := check(spec); err != nil {
		return nil, err
	}
	adjust, err := oomScore(spec.Process)
	if err != nil {
		return nil, err
	}
	a, err := newAttempt(stepsOfInit, spec, spec.Process, o.Stdio, o.Console, o.ExtraFiles, adjust != nil || joinsTime(spec))
	if err != nil {
		return nil, err
	}
	c = &Container{id: o.ID, bundle: o.Bundle, config: o.Config, pidfd: -1, sync: -1, created: time.Now()}
	c.know(spec)
	if o.Systemd {
		if c.path, err = cgroup.Systemd(spec.Linux.CgroupsPath, o.ID, unix.Geteuid() != 0); err != nil {
			a.abort()
			return nil, err
		}
	} else if o.Rootless && spec.Linux.CgroupsPath == "" {
		c.path = cgroup.Beside(o.ID)
	}
	defer func() {
		if err != nil {
			if c.group != nil && c.group.OOMKilled() {
				err = fault.New(fault.Invalid, "container init was OOM-killed (memory limit too low?): %w", err)
			}
			a.abort()
			c.noteMounted(a)
			c.undo()
			c = nil
		}
	}()
	if err = c.setUp(a, &o); err != nil {
		return c, err
	}
	if err = c.finishGroups(a); err != nil { // while init makes its namespaces and mounts
		return c, err
	}
	if o.StateDir != "" { // there is no container before its state is written
		if err = c.saveConfig(o.Text); err != nil {
			return c, err
		}
	}
	if err = c.handshake(ctx, a); err != nil {
		return c, err
	}
	c.noteMounted(a)
	if adjust != nil {
		if err = writeProc(a.pid, "oom_score_adj", *adjust); err != nil && !(ordinary() && errors.Is(err, unix.EACCES)) {
			return c, err
		}
	}
	if o.StateDir != "" {
		if err = c.saveState(); err != nil {
			return c, err
		}
	}
	a.closeOpened()
	if a.b.initFD >= 0 || a.apart { // the child has memory of its own
		a.arena.free()
	}
	c.pid, c.pidfd, c.sync, c.arena, c.program = a.pid, a.pidfd, a.sync, a.arena, a.b.program
	return c, nil
}

// joinsTime tells whether a container enters a time namespace by setns(2): one
// that exists, and on older kernels its own.
func joinsTime(s *specs.Spec) bool {
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.TimeNamespace {
			return n.Path != "" || !execEntersTime()
		}
	}
	return false
}

// execEntersTime tells whether execve(2) moves a process into the time namespace
// that it made for its children, as kernels do since 6.3.
var execEntersTime = sync.OnceValue(func() bool {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return true
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor)
	return err != nil || major > 6 || major == 6 && minor >= 3
})

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
	b.rootfs = c.rootDir()
	if mountsPath(c.spec) == "" {
		if err := checkRoot(b.rootfs); err != nil {
			return err
		}
	}
	if o.StateDir != "" {
		if err := c.claim(a, o); err != nil {
			return err
		}
	}
	filter := compile(c.spec.Linux.Seccomp)
	if err := c.makeRdt(); err != nil {
		return err
	}
	if err := c.draftGroups(a, o); err != nil {
		return err
	}
	if c.group == nil {
		if err := c.openGroups(a, o.Rootless); err != nil {
			return err
		}
	}
	if err := a.takeStage(o); err != nil {
		return err
	}
	if err := a.namespaces(); err != nil {
		return err
	}
	if err := filter(b); err != nil {
		return err
	}
	h := c.spec.Hooks
	if hasInnerHooks(h) {
		if err := a.openInner(3 + len(o.ExtraFiles)); err != nil {
			return err
		}
	}
	b.hooks = h != nil && len(h.Prestart)+len(h.CreateRuntime) > 0
	if err := within(mountsPath(c.spec), a.buildInit); err != nil {
		return err
	}
	return a.launch()
}

func checkRoot(dir string) error {
	if is, err := isDir(dir); err != nil || !is {
		return fault.New(fault.Invalid, "the root file system %s is not a directory", dir)
	}
	return nil
}

// buildInit does what looks at files of the host, where init will find them.
func (a *attempt) buildInit() error {
	b := a.b
	if mountsPath(b.spec) != "" {
		if err := checkRoot(b.rootfs); err != nil {
			return err
		}
	}
	if sharesMounts(b.spec) {
		a.before = mountID(b.rootfs)
	}
	if err := a.openTrees(); err != nil {
		return err
	}
	if environ(b.spec.Process.Env, "HOME") == "" {
		b.home = readHome(b.rootfs, b.spec.Process.User.UID)
	}
	return b.build()
}

// openGroups makes the control groups and opens what the child enters them by.
func (c *Container) openGroups(a *attempt, rootless bool) (err error) {
	b := a.b
	c.group, err = cgroup.Create(c.path, b.resources())
	if rootless && cgroup.Denied(err) {
		if c.spec.Linux.CgroupsPath != "" || cgroup.Limits(b.resources()) {
			return fault.New(fault.KindOf(err), "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: %w", err)
		}
		c.path = cgroup.Nowhere
		c.group, err = cgroup.At(c.path)
	}
	if err != nil {
		return err
	}
	if b.tasks, err = c.group.TaskFiles(); err != nil {
		return err
	}
	a.opened = append(a.opened, b.tasks...)
	c.warnOfDevices(b)
	return c.useGroups(a)
}

// useGroups has the child begin in the groups.
func (c *Container) useGroups(a *attempt) (err error) {
	a.b.group = c.group
	a.apart = c.group.BeginsStarving(a.b.resources())
	if a.cgroup, err = c.group.Open(); err != nil {
		return err
	}
	if a.cgroup >= 0 {
		a.opened = append(a.opened, a.cgroup)
	}
	return nil
}

func (c *Container) warnOfDevices(b *builder) {
	if r := b.resources(); c.group.NoDevices && r != nil && len(r.Devices) > 0 {
		b.warn("linux.resources.devices has no effect: this runtime runs in a user namespace")
	}
}

// resources are the limits without those that kernels no longer have, which the
// specification keeps and asks nobody to enforce.
func (b *builder) resources() *specs.LinuxResources {
	r := b.spec.Linux.Resources
	if r != nil && r.Memory != nil && r.Memory.UseHierarchy != nil && !*r.Memory.UseHierarchy {
		b.warn("linux.resources.memory.useHierarchy has no effect: kernels count a group's memory with its children's always")
	}
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
				if err := setLimits(a.pid, c.spec.Process); err != nil {
					return err
				}
				a.givePipes(c.spec.Process)
			}
			return c.enterRdt(a.pid)
		}
		if err == nil {
			err = a.proceed()
		}
		if err != nil {
			return err
		}
	}
}

// writeProc writes a file of a process in one call.
func writeProc(pid int, name, text string) error {
	path := fmt.Sprintf("/proc/%d/%s", pid, name)
	fd, err := openProcfs(path, unix.O_WRONLY)
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
