package ocirun

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"golang.org/x/sys/unix"
)

// remount appends the change of a mount that is there already: of one place
// where the file system is seen with the option bind, of the file system itself
// without.
func (b *builder) remount(m *specs.Mount, o *mountOptions) {
	const what = "remount"
	mounted := b.root.open(what, m.Destination, b.root.any).keep
	if o.bind {
		o.exact(b.userNamespace())
		b.changeTree(what, m.Destination, mounted, o)
		b.close(mounted)
		return
	}
	b.enter(what, m.Destination, mounted)
	data := num(0)
	if o.data != "" {
		data = b.str(o.data)
	}
	dot := b.str(".")
	b.do(what, m.Destination, unix.SYS_MOUNT, dot, dot, num(0), num(unix.MS_REMOUNT|b.laterReadonly(m, o.flags)), data)
	rest := mountOptions{setAll: o.setAll, clearAll: o.clearAll, propagation: o.propagation}
	b.changeTree(what, m.Destination, mounted, &rest)
	b.close(mounted)
}

// laterReadonly gives the flags of a mount in which later ones and devices are
// still to be made, and notes it if it is to be read-only in the end.
func (b *builder) laterReadonly(m *specs.Mount, flags uintptr) uintptr {
	if flags&unix.MS_RDONLY != 0 && (m.Type == "tmpfs" || below(m.Destination) == "dev") {
		b.late = append(b.late, m.Destination)
		flags &^= unix.MS_RDONLY
	}
	return flags
}

// copyLink appends the making of a symbolic link like the one that is the source
// of a mount, if it is one.
func (b *builder) copyLink(m *specs.Mount, source string) (is bool) {
	target, err := os.Readlink(source)
	if err != nil {
		return false
	}
	what, rel := "link to "+target+" at", below(m.Destination)
	dir, base := path.Split(rel)
	parent := b.root.mkdirs(what, strings.TrimSuffix(dir, "/"), unset)
	there, done := b.label(), b.label()
	b.do(what, m.Destination, unix.SYS_SYMLINKAT, b.str(target), parent, b.str(base)).when(unix.EEXIST, there).then(done)
	b.here(there)
	root := b.root.fd
	b.ask(func(a *attempt) error {
		fd, err := a.take(root)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if have, err := lookBelow(fd, rel); err != nil || have != target {
			return fault.New(fault.Conflict, "the mount %s with the option copy-symlink is to be a link to %s, and something else is there", m.Destination, target)
		}
		return nil
	})
	b.here(done)
	return true
}

// overProc are the files of /proc that a mount may cover: what shows a container
// its own share of the machine (lxcfs) and hides nothing that protects it.
var overProc = []string{"proc/cpuinfo", "proc/diskstats", "proc/meminfo", "proc/stat", "proc/swaps", "proc/uptime",
	"proc/loadavg", "proc/slabinfo", "proc/sys/kernel/ns_last_pid", "proc/sys/crypto/fips_enabled"}

// checkOverProc refuses mounts in /proc, whose files this runtime and the
// programs in the container trust.
func (b *builder) checkOverProc(m *specs.Mount, o *mountOptions) error {
	rel := below(m.Destination)
	switch {
	case rel != "proc" && !strings.HasPrefix(rel, "proc/"), slices.Contains(overProc, rel), o.remount:
		return nil
	case rel != "proc":
		return fault.New(fault.Invalid, "%q cannot be mounted because it is inside /proc", m.Destination)
	case !o.bind && m.Type == "proc":
		return nil
	case o.bind:
		var st unix.Statfs_t
		if err := unix.Statfs(b.sourceOf(m), &st); err != nil || st.Type == unix.PROC_SUPER_MAGIC {
			return nil // what is not there is refused by its own name
		}
	}
	return fault.New(fault.Invalid, "%q cannot be mounted because it is not of type proc", m.Destination)
}

// besideProc ends the program when the target of a mount that is not for /proc, by
// its name, is one of a proc file system: a link of the image may lead there. None
// does where a file system was mounted above that is empty at first.
func (b *builder) besideProc(m *specs.Mount, target value) {
	rel := below(m.Destination)
	if first, _, below := strings.Cut(rel, "/"); first == "proc" || below && b.fresh[first] {
		return
	}
	in, is := b.label(), b.label()
	b.do("look at the mount point", m.Destination, unix.SYS_FSTATFS, target, b.statfs)
	b.do("compare", "", 0, slotAt(b.statfs, 0), num(unix.PROC_SUPER_MAGIC)).then(in).otherwise(is).nr = opCompare
	b.here(in)
	b.refuse("mount at", strconv.Quote(m.Destination)+": it cannot be mounted because it is inside /proc")
	b.here(is)
}

// sourceOf is the host's path of what a bind mount shows.
func (b *builder) sourceOf(m *specs.Mount) string {
	if filepath.IsAbs(m.Source) {
		return m.Source
	}
	return filepath.Join(b.bundle, m.Source)
}
