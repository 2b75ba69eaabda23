package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// baseDirs and baseFiles are what every container's root must have to be
// mounted on. They lie below all layers of the image, which hides whichever it
// has itself: what is missing costs no change of the container's own layer.
// Docker makes the same for each container anew.
var (
	baseDirs  = []string{"dev", "dev/pts", "dev/shm", "etc", "proc", "sys"}
	baseFiles = []string{".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"}
)

// baseLink is a link to baseTarget.
const (
	baseLink   = "etc/mtab"
	baseTarget = "/proc/mounts"
)

// makeBase fills the layer below all others, where something is missing.
func makeBase(dir string) error {
	for _, name := range baseDirs {
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil {
			return err
		}
	}
	for _, name := range baseFiles {
		f, err := os.OpenFile(dir+"/"+name, os.O_CREATE|os.O_RDONLY, 0o755)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := os.Symlink(baseTarget, dir+"/"+baseLink); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// MountPoints are what the store adds to a container's root where the image has
// nothing of the name: paths from the root, without a slash in front. A tree that
// holds all of a container shows such an entry though nobody has made it: a
// directory, or an empty file or link, that the image's tree has not.
func MountPoints() []string { return append(slices.Concat(baseDirs, baseFiles), baseLink) }

// Bare is a tree as its layers make it: what lies below all layers for
// containers' mounts is not in it. It is for who changes a tree and runs nothing
// there. Where trees are whole the mount points are part of them.
func (m Mount) Bare() Mount {
	if m.Upper == "" || len(m.Lower) == 0 {
		return m
	}
	m.Lower = m.Lower[:len(m.Lower)-1]
	if len(m.Lower) == 0 {
		return Mount{Dir: m.Upper}
	}
	return m
}

// addMountPoints makes in a whole tree what makeBase makes below it. An image's
// file or link of the name hides it, as it does in stacked layers.
func addMountPoints(tree string) error {
	root, err := openDir(unix.AT_FDCWD, tree)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range baseDirs {
		err := inParent(root, name, func(dir int, base string) error { return unix.Mkdirat(dir, base, 0o755) })
		if err != nil {
			return err
		}
	}
	for _, name := range baseFiles {
		err := inParent(root, name, func(dir int, base string) error { return unix.Mknodat(dir, base, unix.S_IFREG|0o755, 0) })
		if err != nil {
			return err
		}
	}
	return inParent(root, baseLink, func(dir int, base string) error { return unix.Symlinkat(baseTarget, dir, base) })
}

// inParent calls mk, unless something is there already, or hides what is to be
// there.
func inParent(root *os.File, name string, mk func(dir int, base string) error) error {
	dir := root
	above, base := path.Split(name)
	if above != "" { // never more than one
		sub, err := openDir(int(root.Fd()), path.Clean(above))
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		defer sub.Close()
		dir = sub
	}
	if err := mk(int(dir.Fd()), base); err != nil && !errors.Is(err, unix.EEXIST) {
		return pathError("make", name, err)
	}
	return nil
}
