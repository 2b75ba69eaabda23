package ocirun

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
	"golang.org/x/sys/unix"
)

// A container may share its mount namespace with this process, or with whoever
// lives in one that a path names. Its root file system is then mounted over its
// own directory, chroot(2) makes that the root of its processes, and it is
// unmounted, with all that was mounted in it, when the container is deleted.

// sharesMounts tells whether a container's mounts are seen by others.
func sharesMounts(s *specs.Spec) bool {
	n := namespaceOf(s, specs.MountNamespace)
	return n == nil || n.Path != ""
}

// mountsPath names the mount namespace that a container joins; "" for none.
func mountsPath(s *specs.Spec) string {
	if n := namespaceOf(s, specs.MountNamespace); n != nil {
		return n.Path
	}
	return ""
}

func namespaceOf(s *specs.Spec, t specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == t {
			return &s.Linux.Namespaces[i]
		}
	}
	return nil
}

// checkShared refuses what would change mounts that are not the container's.
func checkShared(s *specs.Spec) error {
	if !sharesMounts(s) {
		return nil
	}
	l := s.Linux
	switch {
	case filepath.Clean(s.Root.Path) == "/":
		return fault.New(fault.Invalid, "root.path / needs a new mount namespace: the container's mounts would cover those of others")
	case l.RootfsPropagation != "":
		return fault.New(fault.Invalid, "linux.rootfsPropagation needs a new mount namespace")
	case mountsPath(s) == "" && len(l.MaskedPaths)+len(l.ReadonlyPaths) > 0:
		return fault.New(fault.Invalid, "unable to restrict sys entries without a private MNT namespace: linux.maskedPaths and linux.readonlyPaths need one")
	}
	return nil
}

// within runs f in the mount namespace of a path; "" is this process's own. A
// thread cannot come back to where it shares directories with others, so it ends
// with f.
func within(path string, f func() error) error {
	if path == "" {
		return f()
	}
	var err error
	thread.Own(func() bool {
		fd, e := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if e == nil {
			defer unix.Close(fd)
			e = errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(fd, unix.CLONE_NEWNS))
		}
		if e != nil {
			err = fault.New(fault.Invalid, "enter the mount namespace %s: %w", path, e)
		} else {
			err = f()
		}
		return false
	})
	return err
}

// mountID tells apart what is mounted at a directory, 0 if that cannot be told.
func mountID(dir string) uint64 {
	const unique = 0x4000 // STATX_MNT_ID_UNIQUE, since Linux 6.8: never given again
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID|unique, &st) != nil {
		return 0
	}
	return st.Mnt_id
}

// rootDir is where the root file system lies on the host.
func (c *Container) rootDir() string {
	s := c.known()
	switch {
	case s.Root == nil || s.Root.Path == "":
		return ""
	case filepath.IsAbs(s.Root.Path):
		return s.Root.Path
	}
	return filepath.Join(c.bundle, s.Root.Path)
}

// noteMounted remembers the mount that init made of the root in a namespace with
// others in it.
func (c *Container) noteMounted(a *attempt) {
	if a.before == 0 {
		return
	}
	_ = within(mountsPath(c.spec), func() error {
		if id := mountID(c.rootDir()); id != a.before {
			c.mounted = id
		}
		return nil
	})
}

// unmountRoot takes the root away that others see. A namespace that is gone has
// none.
func (c *Container) unmountRoot() error {
	dir := c.rootDir()
	if c.mounted == 0 || dir == "" {
		return nil
	}
	err := within(mountsPath(c.known()), func() error {
		if mountID(dir) != c.mounted {
			return nil
		}
		return unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Internal, "unmount the root file system of container %s: %w", c.id, err)
	}
	c.mounted = 0
	return nil
}

// keepRoot appends the change of a further process to init's root directory,
// which is not that of its mount namespace.
func (c *Container) keepRoot(a *attempt) (func(), error) {
	if !sharesMounts(c.known()) {
		return func() {}, nil
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(c.pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Conflict, "open the root directory of container %s: %w", c.id, err)
	}
	a.opened = append(a.opened, fd)
	return func() { a.b.changeDirectory(num(fd)) }, nil
}

// changeDirectory makes a directory the process's root, without a mount.
func (b *builder) changeDirectory(fd value) {
	const what = "change the root directory"
	b.enter(what, "", fd)
	b.do(what, "", unix.SYS_CHROOT, b.str("."))
	b.do(what, "", unix.SYS_CHDIR, b.str("/"))
}
