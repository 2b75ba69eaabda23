package ocirun

import (
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"github.com/tarehq/tare/internal/stage"
	"golang.org/x/sys/unix"
)

// buildRoot appends everything between a fresh mount namespace and the
// container's own root directory.
func (b *builder) buildRoot() error {
	if err := b.attachRoot(); err != nil {
		return err
	}
	if err := b.mountAll(); err != nil {
		return err
	}
	if err := b.devices(); err != nil {
		return err
	}
	if b.spec.Process.Terminal {
		b.openTerminal(true)
	}
	if dir := below(b.spec.Process.Cwd); dir != "." {
		b.root.mkdirs("make the working directory", dir, unset) // as runc does, before anything is read-only
	}
	if err := b.sysctls(); err != nil {
		return err
	}
	b.readonlyPaths()
	b.maskedPaths()
	for _, d := range b.late {
		b.makeReadonly(d)
	}
	if b.spec.Root.Readonly {
		b.attributes("make read-only", "/", b.root.fd, unix.MOUNT_ATTR_RDONLY, 0, 0, false)
	}
	if b.gate.shut() {
		if err := b.settle(); err != nil {
			return err
		}
	}
	if err := b.containerHooks(); err != nil {
		return err
	}
	b.changeRoot()
	return nil
}

// rootPropagation reads linux.rootfsPropagation; rslave is the default.
func rootPropagation(s *specs.Spec) (uintptr, error) {
	if s.Linux.RootfsPropagation == "" {
		return unix.MS_SLAVE | unix.MS_REC, nil
	}
	flag, ok := propagationOptions[s.Linux.RootfsPropagation]
	if !ok {
		return 0, fault.New(fault.Invalid, "linux.rootfsPropagation %q is not known; use rslave, rprivate, rshared or the like", s.Linux.RootfsPropagation)
	}
	return flag, nil
}

// attachRoot mounts a clone of the root file system over "/". Processes keep
// their root directory, so paths of the host still resolve as before.
func (b *builder) attachRoot() error {
	propagation, err := rootPropagation(b.spec)
	if err != nil {
		return err
	}
	if sharesMounts(b.spec) {
		return b.attachShared()
	}
	if b.staged() {
		return b.attachStaged()
	}
	p := b.program
	slash := p.str("/")
	early := propagation
	if early&unix.MS_UNBINDABLE != 0 { // only when the root is cloned
		early = unix.MS_PRIVATE | early&unix.MS_REC
	}
	p.do("set the mount propagation of", "/", unix.SYS_MOUNT, num(0), slash, num(0), num(early), num(0))
	if propagation&unix.MS_SHARED != 0 {
		// pivot_root refuses a shared parent, and the mount would reach the host.
		p.do("make private", "/", unix.SYS_MOUNT, num(0), slash, num(0), num(unix.MS_PRIVATE), num(0))
	}
	if err := b.openSources(); err != nil {
		return err
	}
	tree, target := b.openRoot(), slash
	if kind := early &^ unix.MS_REC; kind == early || kind == unix.MS_SHARED {
		// So is the root, which is a peer of the mount that it lies on.
		if kind == unix.MS_SHARED {
			kind = unix.MS_PRIVATE
		}
		b.attributes("set the mount propagation of", b.rootfs, tree, 0, 0, kind, false)
	}
	if b.atPath() {
		target = p.str(b.rootfs)
	}
	b.mountRoot(tree, target)
	return nil
}

// attachShared mounts a clone of the root file system over its own directory, in
// a namespace whose other mounts stay as they are.
func (b *builder) attachShared() error {
	if err := b.openSources(); err != nil {
		return err
	}
	tree := b.openRoot()
	b.attributes("untie", b.rootfs, tree, 0, 0, unix.MS_SLAVE, true)
	b.mountRoot(tree, b.str(b.rootfs))
	return nil
}

// openRoot gives a detached clone of the root file system.
func (b *builder) openRoot() value {
	if b.rootTree >= 0 {
		return num(b.rootTree)
	}
	tree := b.slot()
	b.do("open the root file system", b.rootfs, unix.SYS_OPEN_TREE, cwd, b.str(b.rootfs), num(cloneFlags(true))).into(tree)
	return tree
}

func (b *builder) mountRoot(tree, target value) {
	p := b.program
	p.do("mount the root file system", b.rootfs, unix.SYS_MOVE_MOUNT, tree, p.str(""), cwd, target, num(unix.MOVE_MOUNT_F_EMPTY_PATH))
	b.root = newRoot(p, tree)
	b.root.ask = func(name string, directory bool) {
		b.ask(func(a *attempt) error { return a.makeTarget(tree, name, directory) })
	}
}

// atPath tells whether the root is mounted over its own directory, so that the
// host's path of a file in it leads to what the container will see: for hooks,
// and for mounts whose source is another mount of the container. Otherwise it
// lies over "/", which needs no path that the user of a user namespace might
// not be let through.
func (b *builder) atPath() bool {
	if h := b.spec.Hooks; h != nil && len(h.CreateContainer) > 0 {
		return true
	}
	for i := range b.spec.Mounts {
		if strings.HasPrefix(b.spec.Mounts[i].Source, b.rootfs+"/") {
			return true
		}
	}
	return false
}

// changeRoot makes the attached root the process's root and lets go of the
// host's tree.
func (b *builder) changeRoot() {
	if sharesMounts(b.spec) {
		b.changeDirectory(b.root.fd)
		return
	}
	p, what := b.program, "change the root directory"
	dot := p.str(".")
	p.enter(what, "", b.root.fd)
	if b.staged() { // nothing is left to let go of
		p.do(what, "", unix.SYS_CHROOT, dot)
	} else if b.noPivot {
		b.hideKernel()
		p.do(what, "", unix.SYS_MOUNT, dot, p.str("/"), num(0), num(unix.MS_MOVE), num(0)).ignore()
		p.do(what, "", unix.SYS_CHROOT, dot)
	} else {
		// The old root is stacked on the new one and is then taken off.
		shared := propagationOptions[b.spec.Linux.RootfsPropagation]&unix.MS_SHARED != 0
		var old value
		if shared {
			old = p.slot()
			p.do(what, "", unix.SYS_OPENAT, cwd, p.str("/"), num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), num(0)).into(old)
		}
		p.do(what, "", unix.SYS_PIVOT_ROOT, dot, dot)
		if shared { // what is tied to the host's mounts would take those off, too
			p.enter(what, "", old)
			p.do("untie the host's mounts", "", unix.SYS_MOUNT, num(0), dot, num(0), num(unix.MS_SLAVE|unix.MS_REC), num(0))
			p.close(old)
		}
		p.do("detach the host's mounts", "", unix.SYS_UMOUNT2, dot, num(unix.MNT_DETACH))
	}
	p.do(what, "", unix.SYS_CHDIR, p.str("/"))
	if name := b.spec.Linux.RootfsPropagation; name != "" { // attachRoot knows it
		p.do("set the mount propagation of the root directory", name, unix.SYS_MOUNT, num(0), p.str("/"), num(0), num(propagationOptions[name]), num(0))
	}
}

// hideKernel takes the host's proc and sysfs away, or covers them: below a root
// that is only covered they would let the container mount its own without the
// masks (the kernel asks whether one is fully visible).
func (b *builder) hideKernel() {
	for _, dir := range b.kernelMounts {
		gone := b.label()
		b.do("unmount", dir, unix.SYS_UMOUNT2, b.str(dir), num(unix.MNT_DETACH)).then(gone).otherwise(following)
		b.do("cover", dir, unix.SYS_MOUNT, b.str("tmpfs"), b.str(dir), b.str("tmpfs"), num(unix.MS_RDONLY), num(0))
		b.here(gone)
	}
}

// kernelMounts finds where proc and sysfs are mounted, the innermost first.
func kernelMounts() (dirs []string, err error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fault.New(fault.Internal, "find the mounts of proc and sysfs: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		head, tail, _ := strings.Cut(line, " - ")
		if f := strings.Fields(head); len(f) > 4 && (strings.HasPrefix(tail, "proc ") || strings.HasPrefix(tail, "sysfs ")) {
			dirs = append([]string{procfs.Unescape(f[4])}, dirs...)
		}
	}
	return dirs, nil
}

func (b *builder) makeReadonly(name string) {
	fd := b.root.open("make read-only", name, b.root.any).keep
	b.attributes("make read-only", name, fd, unix.MOUNT_ATTR_RDONLY, 0, 0, false)
	b.close(fd)
}

// readonlyPaths binds each path onto itself read-only. A path that is missing
// needs no protection.
func (b *builder) readonlyPaths() {
	for _, name := range once(b.spec.Linux.ReadonlyPaths) {
		what, done := "make read-only", b.label()
		fd := b.root.open(what, name, b.root.any).when(unix.ENOENT, done).when(unix.ENOTDIR, done).keep
		tree := b.slot()
		b.do(what, name, unix.SYS_OPEN_TREE, fd, b.str(""), num(cloneFlags(true)|unix.AT_EMPTY_PATH)).into(tree)
		b.attributes(what, name, tree, unix.MOUNT_ATTR_RDONLY, 0, 0, false)
		b.place(what, name, tree, fd)
		b.close(tree)
		b.close(fd)
		b.here(done)
	}
}

// once leaves a path out that stands further ahead in the list.
func once(list []string) []string {
	out := make([]string, 0, len(list))
	for _, name := range list {
		if !contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// maskedPaths covers files with the host's null device, read-only because its mode
// and owner would be the host's to be changed, and directories with an
// empty read-only tmpfs, which all of them share.
func (b *builder) maskedPaths() {
	names := once(b.spec.Linux.MaskedPaths)
	if len(names) == 0 {
		return
	}
	p, what, staged := b.program, "mask", b.staged()
	var empty, used value
	if !staged {
		empty, used = b.emptyTree(what), p.slot()
		defer p.close(empty)
	}
	for _, name := range names {
		done, last, file, further, cover, tree := p.label(), p.label(), p.label(), p.label(), p.label(), p.slot()
		fd := b.root.open(what, name, b.root.any).when(unix.ENOENT, done).when(unix.ENOTDIR, done).keep
		p.enter(what, name, fd).when(unix.ENOTDIR, file)
		if staged {
			p.do(what, name, unix.SYS_OPEN_TREE, cwd, p.str(stage.Empty), num(cloneFlags(false))).into(tree).then(cover)
		} else {
			p.do("compare", "", 0, used, num(0)).otherwise(further).nr = opCompare
			p.place(what, name, empty, fd)
			p.move("note that it is attached", used, num(1)).then(last)
			p.here(further)
			p.do(what, name, unix.SYS_OPEN_TREE, empty, p.str(""), num(cloneFlags(false)|unix.AT_EMPTY_PATH)).into(tree).then(cover)
		}
		p.here(file)
		p.do(what, name, unix.SYS_OPEN_TREE, cwd, p.str("/dev/null"), num(cloneFlags(false))).into(tree)
		if !staged { // where it is so already
			b.attributes(what, name, tree, unix.MOUNT_ATTR_RDONLY, 0, 0, false)
		}
		p.here(cover)
		p.place(what, name, tree, fd)
		p.close(tree)
		p.here(last)
		p.close(fd)
		p.here(done)
	}
}

// emptyTree makes a detached read-only tmpfs with room for nothing.
func (b *builder) emptyTree(what string) value {
	fs, tree := b.slot(), b.slot()
	b.do(what, "", unix.SYS_FSOPEN, b.str("tmpfs"), num(unix.FSOPEN_CLOEXEC)).into(fs)
	for _, option := range [...][2]string{{"source", "tmpfs"}, {"nr_blocks", "1"}, {"nr_inodes", "1"}} {
		b.do(what, "", unix.SYS_FSCONFIG, fs, num(unix.FSCONFIG_SET_STRING), b.str(option[0]), b.str(option[1]), num(0))
	}
	b.do(what, "", unix.SYS_FSCONFIG, fs, num(unix.FSCONFIG_SET_FLAG), b.str("ro"), num(0), num(0))
	b.do(what, "", unix.SYS_FSCONFIG, fs, num(unix.FSCONFIG_CMD_CREATE), num(0), num(0), num(0))
	b.do(what, "", unix.SYS_FSMOUNT, fs, num(unix.FSMOUNT_CLOEXEC), num(unix.MOUNT_ATTR_RDONLY)).into(tree)
	b.close(fs)
	return tree
}

// sysctls writes the kernel parameters of the container's namespaces through
// its own /proc.
func (b *builder) sysctls() error {
	for _, key := range sorted(b.spec.Linux.Sysctl) {
		if err := b.sysctlAllowed(key); err != nil {
			return err
		}
		text := b.spec.Linux.Sysctl[key]
		what, file := "set sysctl "+key+" to", b.slot()
		how := b.words(num(unix.O_WRONLY|unix.O_CLOEXEC), num(0), num(unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS))
		b.do(what, text, unix.SYS_OPENAT2, b.root.fd, b.str(below("/proc/sys/"+sysctlPath(key))), how, num(24)).into(file)
		b.ofProc(what, text, file)
		b.do(what, text, unix.SYS_WRITE, file, b.str(text), num(len(text))).wants(uint64(len(text)))
		b.close(file)
	}
	return nil
}

// ofProc ends the program unless an open file is one of a proc file system: a
// mount of the container may have put another one in its place.
func (b *builder) ofProc(what, object string, file value) {
	is := b.label()
	b.do(what, object, unix.SYS_FSTATFS, file, b.statfs)
	b.do("compare", "", 0, slotAt(b.statfs, 0), num(unix.PROC_SUPER_MAGIC)).then(is).otherwise(following).nr = opCompare
	b.refuse(what, object+": the file is not one of a proc file system")
	b.here(is)
}

// sysctlPath turns dots into slashes, unless the key is a path already.
func sysctlPath(key string) string {
	if strings.Contains(key, "/") {
		return key
	}
	return strings.ReplaceAll(key, ".", "/")
}

// sysctlAllowed refuses what is not of a namespace that the container has for
// itself.
func (b *builder) sysctlAllowed(key string) error {
	dotted := strings.ReplaceAll(key, "/", ".")
	own := func(t specs.LinuxNamespaceType) error {
		if b.has(t) {
			return nil
		}
		return fault.New(fault.Invalid, "sysctl %q is not allowed without an own %s namespace", key, t)
	}
	switch {
	case strings.Contains(dotted, ".."): // a path that leads out of what its beginning names
	case strings.HasPrefix(dotted, "fs.mqueue."):
		return own(specs.IPCNamespace)
	case strings.HasPrefix(dotted, "net."):
		return own(specs.NetworkNamespace)
	case dotted == "kernel.domainname":
		return own(specs.UTSNamespace)
	case dotted == "kernel.hostname":
		return fault.New(fault.Invalid, "sysctl %q is not allowed: it conflicts with the field hostname", key)
	}
	switch dotted {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced":
		return own(specs.IPCNamespace)
	}
	return fault.New(fault.Invalid, "sysctl %q is not in a separate kernel namespace", key)
}
