package keeper

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// reveal lets who is root in a user namespace walk to the bundle by its path, as
// runtimes have him do. On the host only root may enter the directory that all
// bundles are in, or others would reach what containers have of set-user-ID programs;
// here it is covered by one for this bundle, in this process's mounts alone.
func reveal(dir string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	defer unix.Close(tree)
	if err := unix.Mount("tmpfs", filepath.Dir(dir), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=711,size=16k"); err != nil {
		return &os.PathError{Op: "mount", Path: filepath.Dir(dir), Err: err}
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	err = unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}
