package ocirun

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// namespaces sorts the namespaces into those that the clone makes, those that
// the child enters and the pid namespace, which the cloning thread enters.
func (a *attempt) namespaces() error {
	b := a.b
	user := b.namespace(specs.UserNamespace)
	for i := range b.spec.Linux.Namespaces {
		n := &b.spec.Linux.Namespaces[i]
		flag := namespaceFlags[n.Type]
		if n.Path == "" {
			if n.Type != specs.CgroupNamespace && n.Type != specs.TimeNamespace && !(n.Type == specs.MountNamespace && b.staged()) {
				a.flags |= uint64(flag)
			}
			if n.Type == specs.TimeNamespace && !execEntersTime() {
				fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) // keeps the number for the namespace
				if err != nil {
					return fault.New(fault.Internal, "open /dev/null: %w", err)
				}
				a.opened = append(a.opened, fd)
				b.timeNS, b.timeFD = true, fd
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
	} else if b.gate.shut() { // the child makes them, beside the parent's work
		b.again = a.flags &^ unix.CLONE_NEWPID
		a.flags &= unix.CLONE_NEWPID
	}
	return nil
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
	if b.userNamespace() && !ordinary() { // who may clone mounts in their own namespaces alone
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
		if !o.bind || o.remount || (!b.userNamespace() || ordinary()) && !o.mapped(m) {
			continue
		}
		if _, err := os.Readlink(b.sourceOf(m)); err == nil && o.copyLink {
			continue
		}
		if _, ok := b.fromEarlier(i); ok {
			continue
		}
		tree, err := open(b.sourceOf(m), o.recursive)
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
			file, tool string
			maps       []specs.LinuxIDMapping
		}{{"uid_map", "newuidmap", s.Linux.UIDMappings}, {"gid_map", "newgidmap", s.Linux.GIDMappings}} {
			if err := writeMap(pid, m.file, m.tool, m.maps); err != nil {
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
