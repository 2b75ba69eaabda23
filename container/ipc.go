package container

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/internal/thread"
)

// ipc is what a container joins of another's interprocess communication: the
// IPC namespace, and /dev/shm, which is a mount. nil is none.
type ipc struct {
	ns  *joined
	shm *os.File // detached mount
}

func (i *ipc) close() {
	if i != nil {
		i.ns.close()
		i.shm.Close()
	}
}

// joinIPC opens what a container with IpcMode container: joins. The other has
// to run, and to have said that it shares.
func (b *bundle) joinIPC(nameOrID string) (*ipc, error) {
	other, err := b.containers.store.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	if !other.State.Up() {
		return nil, fault.New(fault.Conflict, "failed to join IPC namespace: container %s is not running, start it first", other.ID)
	}
	if mode := other.HostConfig.IpcMode; mode.IsPrivate() || mode.IsNone() || mode.IsEmpty() {
		return nil, fault.New(fault.Invalid, "container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", other.ID)
	}
	ns, err := b.join(other.ID, "ipc")
	if err != nil {
		return nil, err
	}
	mnt, err := b.join(other.ID, "mnt")
	if err != nil {
		ns.close()
		return nil, err
	}
	defer mnt.close()
	shm, err := cloneShm(mnt.file)
	if err != nil {
		ns.close()
		return nil, fault.New(fault.Conflict, "cannot share /dev/shm of container %s: %w", other.ID, err)
	}
	return &ipc{ns: ns, shm: shm}, nil
}

// cloneShm clones the mount of /dev/shm in a mount namespace.
func cloneShm(mnt *os.File) (shm *os.File, err error) {
	thread.Own(func() bool {
		shm, err = shmIn(mnt)
		return false
	})
	return shm, err
}

// shmIn has the calling thread move to the mount namespace. What is there is
// the container's: no link of its is followed, and nothing but a tmpfs taken.
func shmIn(mnt *os.File) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("setns", err)
	}
	at, err := openat.Open(unix.AT_FDCWD, "/dev/shm", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, os.NewSyscallError("openat2", err)
	}
	defer unix.Close(at)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(at, &fs); err != nil {
		return nil, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return nil, errors.New("it is no tmpfs")
	}
	fd, err := unix.OpenTree(at, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), "shm"), nil
}
