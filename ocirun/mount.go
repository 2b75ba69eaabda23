package ocirun

import (
	"os"
	"path"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/stage"
	"golang.org/x/sys/unix"
)

// mountAll appends the spec's mounts in their order. Mounts that become
// read-only only after the devices are made are returned by destination.
func (b *builder) mountAll() error {
	b.fresh = map[string]bool{}
	b.statfs = b.bytes(make([]byte, unsafe.Sizeof(unix.Statfs_t{})))
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		if rest, ok := strings.CutPrefix(m.Destination, b.rootfs+"/"); ok && b.rootfs != "/" { // the host's name of the place
			same := *m
			same.Destination = "/" + rest
			m = &same
		}
		if below(m.Destination) == "." {
			return fault.New(fault.Invalid, "a mount on the container's root itself is not supported")
		}
		o, err := parseOptions(m)
		if err != nil {
			return err
		}
		if o.bind && o.data != "" {
			b.warn("the bind mount " + m.Destination + " has the options " + o.data + ", which no bind mount understands")
		}
		if m.Type == "tmpfs" && !o.bind && !hasMode(o.data) {
			if mode := b.modeBelow(m.Destination, b.spec.Mounts[:i]); mode != "" {
				o.data = strings.TrimPrefix(o.data+","+mode, ",")
			}
		}
		if err := b.checkOverProc(m, &o); err != nil {
			return err
		}
		if strings.HasPrefix(m.Type, "cgroup") && b.gate.shut() {
			if err := b.settle(); err != nil {
				return err
			}
		}
		switch {
		case o.remount:
			b.remount(m, &o)
		case o.bind && o.copyLink && b.copyLink(m, b.sourceOf(m)):
		case o.bind:
			err = b.bind(i, m, &o)
		case m.Type == "cgroup" && !b.group.Unified:
			b.mountGroupsV1(m, &o)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			b.mountGroupV2(m, &o)
		default:
			b.mountFS(m, &o, m.Type)
		}
		if err != nil {
			return err
		}
		switch first, _, _ := strings.Cut(below(m.Destination), "/"); {
		case o.bind || !ownKind(m.Type): // with links of somebody's
			delete(b.fresh, first)
		case first == below(m.Destination) && (m.Type == "tmpfs" && !o.copyUp || m.Type == "sysfs"):
			b.fresh[first] = true
		}
	}
	return nil
}

// hasMode tells whether options of a tmpfs name the mode of its root.
func hasMode(data string) bool {
	return strings.HasPrefix(data, "mode=") || strings.Contains(data, ",mode=")
}

// bind appends a bind mount: the source is cloned detached, gets its attributes
// and is then attached, so it is never visible without them.
func (b *builder) bind(i int, m *specs.Mount, o *mountOptions) error {
	source := b.sourceOf(m)
	directory, err := b.isDir(source)
	inside, within := b.fromEarlier(i)
	if within {
		directory, err = b.isDir(b.behind(i, inside))
	}
	if err != nil && strings.HasPrefix(source, b.rootfs+"/") {
		directory, err = true, nil // it comes with an earlier mount, over the root's own directory
	}
	if err != nil {
		return fault.New(fault.Invalid, "the source of the mount %s cannot be used: stat %s: %w", m.Destination, source, err)
	}
	p, what := b.program, "mount "+source+" at"
	var tree value
	if fd, ok := b.trees[i]; ok {
		tree = num(fd)
	} else if opened, ok := b.sources[i]; ok {
		tree = opened
	} else if within && (b.userNamespace() || o.mapped(m)) {
		tree = b.openEarlier(inside, m, o)
	} else {
		tree = p.slot()
		p.do("open the mount source", source, unix.SYS_OPEN_TREE, cwd, p.str(source), num(cloneFlags(o.recursive))).into(tree)
	}
	o.exact(b.userNamespace())
	b.changeTree(what, m.Destination, tree, o)
	target := b.root.ensure(what, m.Destination, directory, b.root.any)
	b.besideProc(m, target)
	p.place(what, m.Destination, tree, target)
	p.close(tree)
	p.close(target)
	return nil
}

// openSources clones the host's whole tree for the mounts that want it, while the
// container's root, which will lie over "/", is not part of it; for a stage, from
// which none of them can be reached, all sources.
func (b *builder) openSources() error {
	p, staged := b.program, b.staged()
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		if _, ok := b.trees[i]; ok || path.Clean(m.Source) != "/" && !staged {
			continue
		}
		o, err := parseOptions(m)
		if err != nil {
			return err
		}
		if !o.bind || o.remount {
			continue
		}
		source := b.sourceOf(m)
		if o.copyLink {
			if _, err := os.Readlink(source); err == nil {
				continue
			}
		}
		tree := p.slot()
		p.do("open the mount source", source, unix.SYS_OPEN_TREE, cwd, p.str(source), num(cloneFlags(o.recursive))).into(tree)
		if b.sources == nil {
			b.sources = map[int]value{}
		}
		b.sources[i] = tree
	}
	return nil
}

func cloneFlags(recursive bool) uint {
	f := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		f |= unix.AT_RECURSIVE
	}
	return f
}

// changeTree sets attributes and propagation of an open mount.
func (b *builder) changeTree(what, object string, tree value, o *mountOptions) {
	if o.set|o.clear != 0 {
		b.attributes("set the options of", object, tree, o.set, o.clear, 0, false)
	}
	if o.setAll|o.clearAll != 0 {
		b.attributes("set the recursive options of", object, tree, o.setAll, o.clearAll, 0, true)
	}
	for _, flag := range o.propagation {
		b.attributes("set the propagation of", object, tree, 0, 0, flag&^unix.MS_REC, flag&unix.MS_REC != 0)
	}
}

// mountFS appends a mount of a file system. The target is the working
// directory, so that mount(2) has a name for a place which is held by
// descriptor.
func (b *builder) mountFS(m *specs.Mount, o *mountOptions, fstype string) {
	p, what := b.program, "mount "+fstype+" at"
	how := b.root.any
	if fstype == "proc" || fstype == "sysfs" {
		how = b.root.unlinked
	}
	target := b.root.ensure(what, m.Destination, true, how)
	b.besideProc(m, target)
	p.enter(what, m.Destination, target)
	flags := b.laterReadonly(m, o.flags)
	source := m.Source
	if source == "" {
		source = fstype
	}
	data := num(0)
	if text := labelled(o.data, b.spec.Linux.MountLabel, fstype); text != "" {
		data = p.str(text)
	}
	p.do(what, m.Destination, unix.SYS_MOUNT, p.str(source), p.str("."), p.str(fstype), num(flags), data)
	if o.copyUp {
		mounted := b.root.open(what, m.Destination, how).keep
		b.ask(func(a *attempt) error { return a.copyUp(target, mounted, m.Destination) })
		p.close(mounted)
	}
	p.close(target)
	if len(o.propagation) > 0 || o.setAll|o.clearAll != 0 {
		mounted := b.root.open(what, m.Destination, how).keep
		rest := mountOptions{setAll: o.setAll, clearAll: o.clearAll, propagation: o.propagation}
		b.changeTree(what, m.Destination, mounted, &rest)
		p.close(mounted)
	}
}

// mountGroupsV1 gives the container a tree of its own groups: a tmpfs with one
// directory per hierarchy and links for controllers that share one. A stage has one
// for all that are not to change it.
func (b *builder) mountGroupsV1(m *specs.Mount, o *mountOptions) {
	p, what := b.program, "mount the control groups at"
	staged := b.staged() && o.flags&unix.MS_RDONLY != 0 && b.spec.Linux.MountLabel == ""
	made := p.label()
	if staged {
		tree, own := p.slot(), p.label()
		p.do(what, m.Destination, unix.SYS_OPEN_TREE, cwd, p.str(stage.Groups(b.group.Hierarchies())), num(cloneFlags(false))).when(unix.ENOENT, own).into(tree)
		target := b.root.ensure(what, m.Destination, true, b.root.any)
		b.besideProc(m, target)
		p.place(what, m.Destination, tree, target)
		p.close(tree)
		p.move("note that it is mounted", p.slot(), num(0)).then(made)
		p.here(own)
	}
	tmpfs := specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs"}
	options := mountOptions{flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | o.flags&unix.MS_RDONLY, data: "mode=755"}
	b.mountFS(&tmpfs, &options, "tmpfs")
	p.here(made)
	top := b.root.open(what, m.Destination, b.root.dir).keep
	set := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	set |= o.set & unix.MOUNT_ATTR_RDONLY
	for _, member := range b.group.Members {
		if member.Controllers == nil {
			continue // v2 beside v1
		}
		name := member.Name()
		mkdir := p.do(what, name, unix.SYS_MKDIRAT, top, p.str(name), num(0o755))
		if staged {
			mkdir.when(unix.EEXIST, following)
		}
		tree, place := b.groupTree(member.Dir), p.slot()
		b.attributes(what, name, tree, set, 0, unix.MS_PRIVATE, false)
		p.do(what, name, unix.SYS_OPENAT, top, p.str(name), num(unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)).into(place)
		p.place(what, name, tree, place)
		p.close(tree)
		p.close(place)
		for _, c := range member.Controllers {
			if len(member.Controllers) > 1 && c != name {
				p.do(what, c, unix.SYS_SYMLINKAT, p.str(name), top, p.str(c)).when(unix.EEXIST, following)
			}
		}
	}
	p.close(top)
}

// mountGroupV2 mounts the hierarchy. With a cgroup namespace the container's own
// group is its root; without one it is whole, for /proc/self/cgroup names paths
// in it. The root of a user namespace may not mount that, so it is bound.
func (b *builder) mountGroupV2(m *specs.Mount, o *mountOptions) {
	if b.isNew(specs.CgroupNamespace) || !b.userNamespace() {
		b.mountFS(m, o, "cgroup2")
		return
	}
	what := "mount the control group at"
	tree := b.slot()
	mount := "/sys/fs/cgroup"
	if !b.group.None() {
		mount = b.group.Members[0].Mount
	}
	b.do(what, m.Destination, unix.SYS_OPEN_TREE, cwd, b.str(mount), num(cloneFlags(true))).into(tree)
	b.changeTree(what, m.Destination, tree, o)
	target := b.root.ensure(what, m.Destination, true, b.root.any)
	b.besideProc(m, target)
	b.place(what, m.Destination, tree, target)
	b.close(tree)
	b.close(target)
}
