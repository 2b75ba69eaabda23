package keeper

import (
	"encoding/json"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// mountTrees puts detached mounts to their places, in this process's mount
// namespace only.
func mountTrees(body json.RawMessage, files []*os.File) error {
	defer closeAll(files)
	var r supervise.MountRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return fault.New(fault.Invalid, "the request cannot be read: %w", err)
	}
	if len(files) != len(r.Subpaths) {
		return fault.New(fault.Invalid, "%d files came with the request, it needs %d", len(files), len(r.Subpaths))
	}
	for i, f := range files {
		if err := mountTree(int(f.Fd()), supervise.MountPath(r.Dir, r.Skip+i), r.Subpaths[i]); err != nil {
			return err
		}
	}
	return nil
}

// mountTree mounts a tree, or what of it is wanted.
func mountTree(tree int, place, subpath string) error {
	if subpath == "" {
		return attach(tree, place)
	}
	// Older kernels clone only what has a place.
	whole := place + "-whole"
	if err := attach(tree, whole); err != nil {
		return err
	}
	part, err := supervise.CloneBelow(tree, subpath)
	if err != nil {
		return err
	}
	defer part.Close()
	if err := attach(int(part.Fd()), place); err != nil {
		return err
	}
	return os.NewSyscallError("umount", unix.Unmount(whole, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}

func attach(tree int, place string) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := makePlace(place, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fault.New(fault.Internal, "cannot mount a source of the container: %w", os.NewSyscallError("move_mount", err))
	}
	return nil
}

func makePlace(path string, directory bool) error {
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	if directory {
		if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
			return err
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
