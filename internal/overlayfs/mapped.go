package overlayfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/internal/userns"
)

// ErrNoOwners is that a file system cannot show its files as those of other owners.
var ErrNoOwners = errors.New("the file system cannot map the owners of its files to a user namespace (idmapped mounts, Linux 5.19 and later): keep the layers on ext4, xfs or btrfs, or run the container in the host's user namespace")

// mapped mounts by a thread and a mount namespace that end with it. There the
// directory that all layers lie in is covered by itself, with the owners mapped, so
// that one mount does for all of them and for every kernel: until 6.15 overlay takes no
// layers of mounts that are attached nowhere. What overlay makes for itself is the
// mounter's (ovl_create_or_link's creator_cred), who must be somebody to the layers:
// the thread takes root of the namespace for the owner of files.
func mapped(o Overlay, attr int) (fd int, err error) {
	fd = -1
	thread.Own(func() bool {
		fd, err = mappedHere(o, attr)
		return false
	})
	return fd, err
}

func mappedHere(o Overlay, attr int) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, os.NewSyscallError("mount", err)
	}
	dir := o.common()
	tree, err := BindMapped(dir, 0, o.Users.FD)
	if err != nil {
		return -1, err
	}
	err = unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	unix.Close(tree)
	if err != nil {
		return -1, &os.PathError{Op: "move_mount", Path: dir, Err: err}
	}
	if _, err := userns.Act(o.Users.UID, o.Users.GID); err != nil {
		return -1, err
	}
	fd, err := byLayers(o, attr)
	if err == unix.EINVAL || err == unix.ENOSYS {
		data, common, err := options(o)
		if err != nil {
			return -1, err
		}
		return inOwnNamespace(common, o.Lower[0], data, attr)
	}
	return fd, err
}

// BindMapped is Bind with the owners mapped to a user namespace, as Mount does it with Users.
func BindMapped(dir string, attr, users int) (int, error) {
	fd, err := Bind(dir, attr)
	if err != nil {
		return -1, err
	}
	err = userns.MapOwners(fd, users, 0)
	if err != nil {
		unix.Close(fd)
		if userns.ErrNoMap(err) {
			return -1, fmt.Errorf("%s: %w", dir, ErrNoOwners)
		}
		return -1, &os.PathError{Op: "mount_setattr", Path: dir, Err: err}
	}
	return fd, nil
}

// BindFor is Bind, or BindMapped for users who are somebody.
func BindFor(dir string, attr int, users *Users) (int, error) {
	if users != nil {
		return BindMapped(dir, attr, users.FD)
	}
	return Bind(dir, attr)
}

// common is the directory that all of the layers lie in.
func (o Overlay) common() string {
	all := o.Lower
	if o.Upper != "" {
		all = append([]string{o.Upper, o.Work}, all...)
	}
	dir := filepath.Dir(all[0])
	for _, one := range all {
		for !strings.HasPrefix(one, dir+"/") && dir != "/" {
			dir = filepath.Dir(dir)
		}
	}
	return dir
}
