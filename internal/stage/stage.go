// Package stage makes a mount namespace that has nothing of the host's in it but
// the null device, and places for control groups. Whoever lays a root file system over its "/" and makes that
// its root directory is where pivot_root(2) would have brought it: no mount of
// the host lies below. pivot_root looks at every thread of the machine, which
// takes milliseconds beside some thousand of them; here it is called once.
package stage

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/thread"
)

// Empty is the path of a read-only tmpfs with room for nothing.
const Empty = "/empty"

// New makes a namespace and gives a descriptor to join it by. It holds the stage
// itself, which nobody is to change: those who use it join and unshare.
func New() (f *os.File, err error) {
	groups, err := cgroupfs.Host()
	if err != nil {
		return nil, err
	}
	thread.Own(func() bool {
		f, err = build(groups.V1)
		return false // the thread stays there
	})
	return f, err
}

// At takes over a descriptor that may be one of a mount namespace; nil if it is not.
func At(fd int) *os.File {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNS {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "stage")
}

func build(groups []cgroupfs.Hierarchy) (*os.File, error) {
	own, err := unix.Open("/proc/thread-self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/thread-self/ns", Err: err}
	}
	defer unix.Close(own)
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	null, err := unix.OpenTree(unix.AT_FDCWD, os.DevNull, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(null)
	// Who is root in a container could change the mode and the owner of the host's.
	if err := unix.MountSetattr(null, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return nil, os.NewSyscallError("mount_setattr", err)
	}
	if err := furnish(null, groups); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(own, "mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/proc/thread-self/ns/mnt", Err: err}
	}
	return os.NewFile(uintptr(fd), "stage"), nil
}

// furnish replaces the calling thread's mounts by those of a stage.
func furnish(null int, groups []cgroupfs.Hierarchy) error {
	root, err := tmpfs([2]string{"size", "64k"}, [2]string{"nr_inodes", "8"}, [2]string{"mode", "555"})
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := attach(root, "/"); err != nil {
		return err
	}
	for _, dir := range [...]string{"dev", Empty[1:]} {
		if err := unix.Mkdirat(root, dir, 0o555); err != nil {
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
	}
	place, err := unix.Openat(root, os.DevNull[1:], unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	unix.Close(place)
	if err := unix.Fchdir(root); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	if err := attach(null, os.DevNull); err != nil {
		return err
	}
	furnishGroups(root, groups)
	empty, err := tmpfs([2]string{"nr_blocks", "1"}, [2]string{"nr_inodes", "1"})
	if err != nil {
		return err
	}
	defer unix.Close(empty)
	if err := attach(empty, Empty); err != nil {
		return err
	}
	for _, dir := range [...]string{Empty, "/"} {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return os.NewSyscallError("remount", err)
		}
	}
	return nil
}

// Groups is the path of a read-only tmpfs with a directory for each hierarchy and a
// link for each controller that shares one. A stage has it for the hierarchies that
// the machine had when it was made.
func Groups(of []cgroupfs.Hierarchy) string {
	name := "/groups"
	for i := range of {
		name += ":" + of[i].Name()
	}
	return name
}

// furnishGroups makes that of the machine; without it each container makes its own.
func furnishGroups(root int, of []cgroupfs.Hierarchy) {
	name := Groups(of)
	if len(of) == 0 || unix.Mkdirat(root, name[1:], 0o555) != nil {
		return
	}
	if fillGroups(name, of) != nil {
		_ = unix.Unlinkat(root, name[1:], unix.AT_REMOVEDIR) // who looks for it sees that there is none
	}
}

func fillGroups(name string, of []cgroupfs.Hierarchy) error {
	tree, err := tmpfs([2]string{"mode", "755"})
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	for i := range of {
		h := &of[i]
		if err := unix.Mkdirat(tree, h.Name(), 0o755); err != nil {
			return err
		}
		for _, c := range h.Controllers {
			if len(h.Controllers) > 1 && c != h.Name() {
				if err := unix.Symlinkat(h.Name(), tree, c); err != nil && err != unix.EEXIST {
					return err
				}
			}
		}
	}
	// Of the mount alone, so that it looks like one that a container has for itself.
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
	}); err != nil {
		return err
	}
	return attach(tree, name)
}

// tmpfs makes one that no path leads to yet, of the options.
func tmpfs(options ...[2]string) (fd int, err error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	for _, o := range append(options, [2]string{"source", "tmpfs"}) {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, os.NewSyscallError("fsconfig", err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	return fd, os.NewSyscallError("fsmount", err)
}

// attach mounts a tree at a path.
func attach(tree int, path string) error {
	return os.NewSyscallError("move_mount", unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH))
}
