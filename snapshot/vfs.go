package snapshot

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/deltree"
)

// vfs makes trees by copying. Where the file system can, the copies share their
// data until it is written to.
type vfs struct {
	store   *Store
	reflink func() bool
}

func (v *vfs) check() error {
	v.reflink = sync.OnceValue(func() bool { return canReflink(v.store.path("new")) })
	return nil
}

func (v *vfs) create(path string) error      { return os.Mkdir(path, 0o755) }
func (v *vfs) clone(path, from string) error { return copyTree(path, from) }
func (v *vfs) remove(path string) error      { return deltree.Remove(path) }

// keep syncs: the names of files may survive power loss and their data not, and
// nobody would make the copy again.
func (v *vfs) keep(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd())))
}

func (v *vfs) status() [][2]string {
	return [][2]string{{"Backing Filesystem", fileSystem(v.store.root)}, {"Reflinks", strconv.FormatBool(v.reflink())}}
}

// canReflink tries FICLONE, ioctl_ficlone(2).
func canReflink(dir string) bool {
	from, err := os.CreateTemp(dir, "reflink")
	if err != nil {
		return false
	}
	defer os.Remove(from.Name())
	defer from.Close()
	to, err := os.CreateTemp(dir, "reflink")
	if err != nil {
		return false
	}
	defer os.Remove(to.Name())
	defer to.Close()
	if _, err := from.WriteString("x"); err != nil {
		return false
	}
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// fileSystem names the kind of the file system that path lies on, as
// /proc/filesystems does.
func fileSystem(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "unknown"
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC:
		return "extfs"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.F2FS_SUPER_MAGIC:
		return "f2fs"
	case unix.V9FS_MAGIC:
		return "9p"
	}
	return "0x" + strconv.FormatUint(uint64(uint32(st.Type)), 16)
}
