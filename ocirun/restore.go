package ocirun

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/ocirun/cgroup"
	"github.com/tarehq/tare/ocirun/criu"
)

// Restore makes the container of a bundle with the processes of a checkpoint,
// which go on where they were. Control groups, limits, sources of mounts and
// namespaces that exist are what the bundle says; Options.Stdio and Console take
// the place of what the processes had. When it fails nothing is left.
//
// The container's init becomes a child of this process.
func Restore(ctx context.Context, o Options, from CheckpointOptions) (*Container, error) {
	spec := o.Spec
	if spec == nil {
		var err error
		if spec, o.Text, err = ReadBundle(o.Bundle, o.Config); err != nil {
			return nil, err
		}
	}
	if err := check(spec); err != nil {
		return nil, err
	}
	if err := from.restorable(spec); err != nil {
		return nil, err
	}
	c := &Container{id: o.ID, bundle: o.Bundle, config: o.Config, pidfd: -1, sync: -1, created: time.Now()}
	c.know(spec)
	r := &restoration{Container: c, Options: o, from: from}
	err := r.prepare()
	if err == nil {
		thread.Own(func() bool { // whose mounts and control groups are not the process's
			err = r.run(ctx)
			return false
		})
	}
	if err == nil && o.StateDir != "" {
		if err = c.saveConfig(o.Text); err == nil {
			err = c.saveState()
		}
	}
	if err != nil {
		if c.pid > 0 {
			_ = unix.Kill(c.pid, unix.SIGKILL)
			_, _ = wait(c.pid)
		}
		c.letGo()
		c.undo()
		return nil, err
	}
	return c, nil
}

// restoration is a container while it is restored.
type restoration struct {
	*Container
	Options
	from  CheckpointOptions
	files []*os.File // for CRIU
}

// restorable says what stands in the way, before anything is touched.
func (o *CheckpointOptions) restorable(spec *specs.Spec) error {
	if o.Images == "" {
		return fault.New(fault.Invalid, "invalid directory to restore checkpoint")
	}
	if _, ok := cgroupModes[o.CgroupsMode]; !ok {
		return fault.New(fault.Invalid, "invalid manage-cgroups-mode value: %q; use soft, full, strict or ignore", o.CgroupsMode)
	}
	if _, err := criu.LookPath(o.CRIU); err != nil {
		return err
	}
	for _, name := range []string{"inventory.img", "pstree.img", descriptorsFile} {
		if _, err := os.Stat(filepath.Join(o.Images, name)); err != nil {
			return fault.New(fault.Invalid, "%s has no checkpoint: %w", o.Images, err)
		}
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Path != "" && n.Type == specs.CgroupNamespace {
			return fault.New(fault.Invalid, "a container cannot be restored into another's cgroup namespace")
		}
	}
	return nil
}

// prepare makes the state directory and the control groups.
func (r *restoration) prepare() (err error) {
	if dir, err := isDir(r.rootfs()); err != nil || !dir {
		return fault.New(fault.Invalid, "the root file system %s is not a directory", r.rootfs())
	}
	if r.StateDir != "" {
		if err := r.reserve(r.StateDir); err != nil {
			return err
		}
	}
	warn := r.Warn
	if warn == nil {
		warn = func(string) {}
	}
	b := &builder{spec: r.spec, warn: warn}
	r.group, err = cgroup.Create(r.path, b.resources())
	return err
}

// run has CRIU make the processes. It leaves the calling thread in a mount
// namespace and in control groups that are not its process's.
func (r *restoration) run(ctx context.Context) error {
	defer func() { closeFiles(r.files) }()
	root, err := r.mountRoot()
	if err != nil {
		return err
	}
	// Opened in this mount namespace, for CRIU works in the directory, and mounts
	// something there.
	opts, files, err := r.from.common("restore.log", r.spec)
	defer closeFiles(files)
	if err != nil {
		return err
	}
	opts.Root = &root
	opts.RstSibling, opts.EvasiveDevices = new(true), new(true)
	if p := r.profile(); p != "" {
		opts.LsmProfile = &p
	}
	if r.from.LSMMountContext != "" {
		opts.LsmMountContext = &r.from.LSMMountContext
	}
	if err := r.allowed(); err != nil {
		return err
	}
	if err := r.namespaces(opts); err != nil {
		return err
	}
	if err := r.streams(opts); err != nil {
		return err
	}
	if opts.ExtMnt, err = r.outerSources(); err != nil {
		return err
	}
	if err := criu.TidyGroups(filepath.Join(r.from.Images, "cgroup.img"), r.ownHierarchy); err != nil {
		return err // it may be another runtime's checkpoint
	}
	noted, err := criu.NotesGroups(filepath.Join(r.from.Images, "cgroup.img"))
	if err != nil {
		return err
	}
	alone := r.from.CgroupsMode == "" && !noted && !r.group.Unified
	if alone {
		opts.ManageCgroupsMode = rpc.CriuCgMode_IGNORE.Enum()
	}
	leave, err := r.enterGroups(alone)
	if err != nil {
		return err
	}
	defer leave()
	group, err := r.group.Open()
	if err != nil {
		return err
	}
	if group >= 0 {
		defer unix.Close(group)
	}
	kind := rpc.CriuReqType_RESTORE
	call := criu.Call{Path: r.from.CRIU, Files: r.files, Group: group, Request: &rpc.CriuReq{Type: &kind, Opts: opts},
		Begun:    func(pid int) (err error) { opts.CgRoot, err = groupRoots(pid); return err },
		Notified: func(n criu.Notice) error { return r.notified(ctx, n) },
	}
	if _, err := call.Do(ctx); err != nil {
		return r.from.explain(err, "restore.log")
	}
	if r.pid == 0 {
		return fault.New(fault.Internal, "criu restored no process")
	}
	return nil
}

// notified does what is due at a stage of the restoration.
func (r *restoration) notified(ctx context.Context, n criu.Notice) error {
	switch n.Stage {
	case "setup-namespaces":
		if err := r.loopback(n.Pid); err != nil {
			return err
		}
		h := r.spec.Hooks
		if h == nil {
			return nil
		}
		r.pid = n.Pid
		defer func() { r.pid = 0 }()
		if err := r.runHooks(ctx, "prestart", h.Prestart, specs.StateCreating); err != nil {
			return err
		}
		return r.runHooks(ctx, "createRuntime", h.CreateRuntime, specs.StateCreating)
	case "post-restore":
		r.pid = n.Pid
		pidfd, err := unix.PidfdOpen(n.Pid, 0)
		if err != nil {
			return fault.New(fault.Internal, "open the restored process %d: %w", n.Pid, err)
		}
		r.pidfd = pidfd
		if err := r.isolated(n.Pid); err != nil {
			return err
		}
		if err := r.mounted(n.Pid); err != nil {
			return err
		}
		return r.grouped(n.Pid)
	case "orphan-pts-master":
		if n.File == nil || r.Console == nil {
			return fault.New(fault.Invalid, "the container has a terminal, and there is no console socket to send it to")
		}
		if err := unix.Sendmsg(int(r.Console.Fd()), []byte("/dev/ptmx"), unix.UnixRights(int(n.File.Fd())), nil, 0); err != nil {
			return fault.New(fault.Internal, "send the container's terminal: %w", err)
		}
	}
	return nil
}

// loopback brings the loopback interface of a network namespace up that was made
// for the container.
func (r *restoration) loopback(pid int) (err error) {
	made := slices.ContainsFunc(r.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.NetworkNamespace && n.Path == ""
	})
	if !made || pid <= 0 {
		return nil
	}
	thread.Own(func() bool {
		err = loopbackUp("/proc/" + strconv.Itoa(pid) + "/ns/net")
		return false
	})
	if err != nil {
		return fault.New(fault.Internal, "bring the container's loopback interface up: %w", err)
	}
	return nil
}

func loopbackUp(namespace string) error {
	ns, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// inherit gives a file the name that it has in the images.
func (r *restoration) inherit(opts *rpc.CriuOpts, key string, f *os.File) {
	opts.InheritFd = append(opts.InheritFd, &rpc.InheritFd{Key: &key, Fd: new(int32(criu.FirstFile + len(r.files)))})
	r.files = append(r.files, f)
}

// namespaces names those that exist already.
func (r *restoration) namespaces(opts *rpc.CriuOpts) error {
	for i := range r.spec.Linux.Namespaces {
		n := &r.spec.Linux.Namespaces[i]
		switch {
		case n.Path == "":
		case n.Type == specs.NetworkNamespace, n.Type == specs.PIDNamespace:
			f, err := os.Open(n.Path)
			if err != nil {
				return fault.New(fault.Invalid, "Requested %s namespace %s does not exist: %w", n.Type, n.Path, err)
			}
			r.inherit(opts, namespaceKey(n.Type), f)
		default:
			opts.JoinNs = append(opts.JoinNs, &rpc.JoinNamespace{Ns: new(namespaceName(n.Type)), NsFile: &n.Path})
		}
	}
	return nil
}

// streams puts our files in the place of what descriptors 0, 1 and 2 led to.
func (r *restoration) streams(opts *rpc.CriuOpts) error {
	text, err := os.ReadFile(filepath.Join(r.from.Images, descriptorsFile))
	if err != nil {
		return fault.New(fault.Invalid, "%s has no checkpoint: %w", r.from.Images, err)
	}
	var keys []string
	if err := json.Unmarshal(text, &keys); err != nil || len(keys) > 3 {
		return fault.New(fault.Invalid, "%s of the checkpoint cannot be read: make the checkpoint anew", descriptorsFile)
	}
	seen := map[string]bool{}
	for i, key := range keys {
		if seen[key] || !strings.HasPrefix(key, "pipe:[") && !strings.HasPrefix(key, "file[") {
			continue
		}
		seen[key] = true
		f := r.Stdio[i]
		if f == nil {
			f, err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
		} else {
			var fd int
			fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			f = os.NewFile(uintptr(fd), "stream")
		}
		if err != nil {
			return fault.New(fault.Internal, "open descriptor %d of the container: %w", i, err)
		}
		r.inherit(opts, key, f)
	}
	return nil
}

// enterGroups moves the calling thread, and so what it executes, to the
// container's groups of version 1, until leave, and where CRIU leaves groups alone to
// the container's cgroup namespace. A thread that stayed would have
// its process be killed with the container's.
func (r *restoration) enterGroups(alone bool) (leave func(), err error) {
	tasks, err := r.group.TaskFiles()
	if err != nil {
		return nil, err
	}
	defer cgroup.Close(tasks)
	host, err := cgroupfs.Host()
	if err != nil {
		return nil, err
	}
	leave = func() {
		for i := range host.V1 {
			for _, own := range []string{host.V1[i].Place("."), host.V1[i].Mount} {
				if os.WriteFile(own+"/tasks", []byte("0"), 0) == nil {
					break
				}
			}
		}
	}
	for _, fd := range tasks {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			leave()
			return nil, fault.New(fault.Internal, "enter the container's control group: %w", err)
		}
	}
	if alone && r.ownGroups() { // CRIU makes no namespace of groups either
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			leave()
			return nil, fault.New(fault.Internal, "make the container's cgroup namespace: %w", err)
		}
	}
	return leave, nil
}

// groupRoots tells where the restored processes belong: to the groups that CRIU
// is in itself.
func groupRoots(pid int) ([]*rpc.CgroupRoot, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, fault.New(fault.Internal, "find CRIU's control groups: %w", err)
	}
	var list []*rpc.CgroupRoot
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 {
			list = append(list, &rpc.CgroupRoot{Ctrl: &f[1], Path: &f[2]})
		}
	}
	return list, nil
}

// mountRoot gives the calling thread a mount namespace in which the container's
// root is a mount of its own, as CRIU wants it, and makes what mounts are put on.
func (r *restoration) mountRoot() (string, error) {
	fail := func(err error) (string, error) {
		return "", fault.New(fault.Internal, "mount the container's root: %w", err)
	}
	root, err := filepath.EvalSymlinks(r.rootfs())
	if err != nil {
		return fail(err)
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fail(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fail(err)
	}
	mounts, err := readMounts(0)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(mounts, func(m mountLine) bool { return m.point == root }) {
		if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fail(err)
		}
	}
	return root, r.makePlaces(root)
}

// makePlaces makes the directories and files of the root, and of what is bound
// into it, that mounts are put on. What lies in another file system of the
// container comes with the checkpoint.
func (r *restoration) makePlaces(root string) error {
	uid, gid := outerRoot(r.spec.Linux.UIDMappings), outerRoot(r.spec.Linux.GIDMappings)
	trees := []struct{ place, source string }{{"/", root}} // the innermost last
	for i := range r.spec.Mounts {
		m := &r.spec.Mounts[i]
		place, source := path.Clean("/"+m.Destination), ""
		directory := true
		if bindMount(m) {
			if source = m.Source; !filepath.IsAbs(source) {
				source = filepath.Join(r.bundle, source)
			}
			var err error
			if directory, err = isDir(source); err != nil {
				return fault.New(fault.Invalid, "the source of the mount %s cannot be used: stat %s: %w", m.Destination, source, err)
			}
		}
		for j := len(trees) - 1; j >= 0; j-- {
			rest, ok := pathBelow(place, trees[j].place)
			if !ok {
				continue
			}
			if trees[j].source != "" && rest != "" {
				if err := makePlace(trees[j].source, rest, directory, uid, gid); err != nil {
					return fault.New(fault.Invalid, "make the mount point %s: %w", m.Destination, err)
				}
			}
			break
		}
		trees = append(trees, struct{ place, source string }{place, source})
	}
	return nil
}

func makePlace(source, rest string, directory bool, uid, gid int) error {
	fd, err := unix.Open(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return makeBelowAs(fd, rest, directory, uid, gid)
}

// outerRoot is what id 0 of a user namespace is outside.
func outerRoot(maps []specs.LinuxIDMapping) int {
	for _, m := range maps {
		if m.ContainerID == 0 {
			return int(m.HostID)
		}
	}
	return 0
}
