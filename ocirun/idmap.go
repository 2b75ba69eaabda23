package ocirun

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// mapped tells whether a mount shows other owners than its source has.
func (o *mountOptions) mapped(m *specs.Mount) bool {
	return o.idmap || len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0
}

// mapOwners gives an open, detached mount id maps: its own, or those of the
// container's user namespace.
func (a *attempt) mapOwners(tree int, m *specs.Mount, o *mountOptions) error {
	uid, gid := m.UIDMappings, m.GIDMappings
	ns, err := -1, error(nil)
	switch user := a.b.namespace(specs.UserNamespace); {
	case len(uid) > 0 && len(gid) > 0:
		ns, err = mapNamespace(uid, gid)
	case len(uid) > 0 || len(gid) > 0:
		return fault.New(fault.Invalid, "the mount %s needs both uidMappings and gidMappings", m.Destination)
	case user == nil:
		return fault.New(fault.Invalid, "the mount %s has the option idmap, and neither mappings nor a user namespace", m.Destination)
	case user.Path != "":
		ns, err = unix.Open(user.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	default:
		ns, err = mapNamespace(a.b.spec.Linux.UIDMappings, a.b.spec.Linux.GIDMappings)
	}
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	flags := uint(unix.AT_EMPTY_PATH)
	if o.idmapAll {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}
	if err := unix.MountSetattr(tree, "", flags, &attr); err != nil {
		return fault.New(fault.Invalid, "the owners of the mount %s cannot be mapped: its file system does not support that (idmapped mounts), or they are mapped already: %w", m.Destination, err)
	}
	return nil
}

// fromEarlier tells whether a mount's source lies in an earlier mount of the same
// container, and where in the container that is. Such a source is not there before
// its mount is made.
func (b *builder) fromEarlier(i int) (string, bool) {
	inside, ok := strings.CutPrefix(path.Clean(b.sourceOf(&b.spec.Mounts[i])), b.rootfs+"/")
	if !ok {
		return "", false
	}
	return inside, b.earlier(i, inside) != nil
}

// earlier is the last mount before number i that a path of the container lies in.
func (b *builder) earlier(i int, inside string) (m *specs.Mount) {
	for j := range b.spec.Mounts[:i] {
		if strings.HasPrefix(inside+"/", b.destination(j)+"/") {
			m = &b.spec.Mounts[j]
		}
	}
	return m
}

// destination is where a mount goes, relative to the container's root.
func (b *builder) destination(i int) string {
	return below(strings.TrimPrefix(b.spec.Mounts[i].Destination, b.rootfs+"/"))
}

// behind is the host's path of what will be seen at a path of an earlier bind
// mount. In a file system that is mounted anew are only directories.
func (b *builder) behind(i int, inside string) string {
	for j := i - 1; j >= 0; j-- {
		rest, ok := strings.CutPrefix(inside+"/", b.destination(j)+"/")
		if !ok {
			continue
		}
		source := b.sourceOf(&b.spec.Mounts[j])
		if next, ok := strings.CutPrefix(path.Clean(source), b.rootfs+"/"); ok {
			return b.behind(j, path.Join(next, rest))
		}
		return path.Join(source, rest)
	}
	return path.Join(b.rootfs, inside)
}

// openEarlier clones what lies in an earlier mount of the container. It is found by
// the root's descriptor, for the user of a user namespace may not reach it by the
// host's path; its id maps are the parent's to give.
func (b *builder) openEarlier(inside string, m *specs.Mount, o *mountOptions) value {
	const what = "open the mount source"
	from, tree := b.root.open(what, inside, b.root.any).keep, b.slot()
	b.do(what, "/"+inside, unix.SYS_OPEN_TREE, from, b.str(""), num(cloneFlags(o.recursive)|unix.AT_EMPTY_PATH)).into(tree)
	b.close(from)
	if o.mapped(m) {
		b.ask(func(a *attempt) error {
			fd, err := a.take(tree)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return a.mapOwners(fd, m, o)
		})
	}
	return tree
}

// mapNamespace makes a user namespace that is nothing but its maps. A child
// holds it until it is open here.
func mapNamespace(uid, gid []specs.LinuxIDMapping) (fd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fault.New(fault.Internal, "make a socket: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	p := newProgram(32)
	p.do("wait for the runtime", "", unix.SYS_READ, num(pair[1]), p.words(num(0)), num(1)).ignore()
	p.here(p.fail)
	p.do("exit", "", unix.SYS_EXIT_GROUP, num(0)).ignore()
	mem, err := place(p, -1, false)
	if err != nil {
		return -1, err
	}
	defer mem.free()
	pid, pidfd, err := mem.start(unix.CLONE_NEWUSER|unix.CLONE_VM, -1, nil)
	if err != nil {
		return -1, err
	}
	defer func() {
		_, _ = unix.Write(pair[0], []byte{1})
		_, _ = wait(pid)
		unix.Close(pidfd)
	}()
	if err := writeProc(pid, "uid_map", mapText(uid)); err != nil {
		return -1, err
	}
	if err := writeProc(pid, "gid_map", mapText(gid)); err != nil {
		return -1, err
	}
	fd, err = unix.Open(fmt.Sprintf("/proc/%d/ns/user", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fault.New(fault.Internal, "open the namespace of id maps: %w", err)
	}
	return fd, nil
}
