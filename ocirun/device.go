package ocirun

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// defaultNodes are in every /dev that the container does not get from
// elsewhere.
var defaultNodes = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7}, {Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9}, {Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// devices appends the nodes and links of /dev. A /dev that is a bind mount
// belongs to someone else and stays as it is.
func (b *builder) devices() error {
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		if below(m.Destination) == "dev" && (m.Type == "bind" || contains(m.Options, "bind") || contains(m.Options, "rbind")) {
			return nil
		}
	}
	b.do("set the file mode mask", "", unix.SYS_UMASK, num(0))
	dev := b.root.mkdirs("make", "dev", unset)
	named := map[string]bool{}
	for i := range b.spec.Linux.Devices {
		d := &b.spec.Linux.Devices[i]
		named[below(d.Path)] = true
		if err := b.device(dev, d, true); err != nil {
			return err
		}
	}
	for i := range defaultNodes {
		if !named[below(defaultNodes[i].Path)] {
			if err := b.device(dev, &defaultNodes[i], false); err != nil {
				return err
			}
		}
	}
	b.devLinks(dev)
	b.do("set the file mode mask", "", unix.SYS_UMASK, num(0o022))
	b.close(dev)
	return nil
}

func (b *builder) devLinks(dev value) {
	link := func(target, name string) *step {
		return b.do("link /dev/"+name+" to", target, unix.SYS_SYMLINKAT, b.str(target), dev, b.str(name)).when(unix.EEXIST, following)
	}
	link("/proc/self/fd", "fd")
	link("/proc/self/fd/0", "stdin")
	link("/proc/self/fd/1", "stdout")
	link("/proc/self/fd/2", "stderr")
	b.do("remove", "/dev/ptmx", unix.SYS_UNLINKAT, dev, b.str("ptmx"), num(0)).ignore()
	link("pts/ptmx", "ptmx")
}

// device makes one node, which the configuration asked for or every container
// has; in a user namespace, where nobody may, it binds the
// host's node of the same path.
func (b *builder) device(dev value, d *specs.LinuxDevice, asked bool) error {
	mode, number, err := nodeMode(d)
	if err != nil {
		return err
	}
	what, rel := "make the device", below(d.Path)
	if b.userNamespace() || b.group.NoDevices {
		target := b.root.ensure(what, d.Path, false, b.root.any)
		tree := b.hostDevice(what, "/"+rel)
		b.place(what, d.Path, tree, target)
		b.close(tree)
		b.close(target)
		return nil
	}
	dir, base := b.root.fd, rel
	if i := strings.LastIndexByte(rel, '/'); rel[:max(i, 0)] == "dev" {
		dir, base = dev, rel[4:]
	} else if i >= 0 {
		dir, base = b.root.mkdirs(what, rel[:i], unset), rel[i+1:]
	}
	exists, done, name := b.label(), b.label(), b.str(base)
	b.do(what, d.Path, unix.SYS_MKNODAT, dir, name, num(mode), num(number)).when(unix.EEXIST, exists)
	if d.UID != nil && *d.UID != 0 || d.GID != nil && *d.GID != 0 {
		uid, gid := uint32(0), uint32(0)
		if d.UID != nil {
			uid = *d.UID
		}
		if d.GID != nil {
			gid = *d.GID
		}
		b.do("set the owner of", d.Path, unix.SYS_FCHOWNAT, dir, name, num(uid), num(gid), num(unix.AT_SYMLINK_NOFOLLOW))
	}
	if asked {
		b.jump(done)
	}
	b.here(exists)
	if root := b.root.fd; asked {
		b.ask(func(a *attempt) error { return a.checkNode(root, d, mode, number) })
	}
	b.here(done)
	return nil
}

// checkNode refuses another file in a device's place.
func (a *attempt) checkNode(root value, d *specs.LinuxDevice, mode uint32, number uint64) error {
	dir, err := a.take(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	fd, err := openBelow(dir, below(d.Path), unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		return fault.New(fault.Invalid, "look at the device %s: %w", d.Path, err)
	}
	if st.Mode&unix.S_IFMT != mode&unix.S_IFMT || st.Rdev != number {
		return fault.New(fault.Conflict, "the device %s cannot be made: another file is there already", d.Path)
	}
	return nil
}

// nodeMode gives mknod's arguments.
func nodeMode(d *specs.LinuxDevice) (mode uint32, number uint64, err error) {
	mode = 0o666
	if d.FileMode != nil {
		mode = uint32(*d.FileMode) & 0o7777
	}
	switch d.Type {
	case "c", "u":
		mode |= unix.S_IFCHR
	case "b":
		mode |= unix.S_IFBLK
	case "p":
		return mode | unix.S_IFIFO, 0, nil
	default:
		return 0, 0, fault.New(fault.Invalid, "the device %s has the type %q; it must be c, u, b or p", d.Path, d.Type)
	}
	return mode, unix.Mkdev(uint32(d.Major), uint32(d.Minor)), nil
}

// hostDevice opens a detached clone of a node of the host.
func (b *builder) hostDevice(what, name string) value {
	tree := b.slot()
	b.do(what, name, unix.SYS_OPEN_TREE, cwd, b.str(name), num(cloneFlags(false))).into(tree)
	return tree
}

func contains(list []string, word string) bool {
	for _, s := range list {
		if s == word {
			return true
		}
	}
	return false
}
