// Package view is a container's root with what is mounted in it, to be worked on by
// descriptors below it alone: links, absolute ones too, lead inside of it.
package view

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/snapshot"
)

// View is an open root.
type View struct {
	root   *os.File // a place (O_PATH)
	mounts *os.File // the mount namespace that keeps the root where nobody else does; else nil
}

// Of is the view of a root that somebody else keeps, a place of which it closes.
func Of(root *os.File) *View { return &View{root: root} }

// Root is the place.
func (v *View) Root() *os.File { return v.root }

// Close lets the root go.
func (v *View) Close() {
	v.root.Close()
	if v.mounts != nil {
		v.mounts.Close()
	}
}

// Bind is a tree to be mounted in a root.
type Bind struct {
	Target string
	Tree   *os.File // a detached mount
}

// Options say how a root is mounted.
type Options struct {
	Users    *overlayfs.Users // to whom it is shown; nil for the host's
	Write    bool             // it is to be written to; otherwise nothing of it is changed
	Volatile bool             // it is not synced when it is written
	ReadOnly bool             // nothing but what is mounted in it can be written to
}

// ErrNoPlace tells that something is to be mounted where the root has nothing.
var ErrNoPlace = errors.New("the root has no place for a mount")

// Mount mounts a root with the trees in it, parents before children, in a mount namespace
// of its own that nobody else sees.
func Mount(root snapshot.Mount, binds []Bind, o Options) (v *View, err error) {
	thread.Own(func() bool {
		v, err = mount(root, binds, o)
		return false // the thread ends, the namespace with the view
	})
	return v, err
}

// mount is to be called by a thread that is used for nothing else after.
func mount(root snapshot.Mount, binds []Bind, o Options) (*View, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	// The host may unmount what it has, and sees nothing of ours.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	mounts, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	v := &View{mounts: mounts}
	if v.root, err = mountRoot(root, o); err != nil {
		return nil, errors.Join(err, mounts.Close())
	}
	// On the namespace's own root, which is looked at no more: only the descriptor
	// leads there.
	err = unix.MoveMount(int(v.root.Fd()), "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err == nil && o.Users != nil {
		_, err = userns.Act(o.Users.UID, o.Users.GID)
	}
	for i := 0; err == nil && i < len(binds); i++ {
		err = v.bind(int(binds[i].Tree.Fd()), binds[i].Target, o.Write)
	}
	if err == nil && o.ReadOnly {
		err = unix.MountSetattr(int(v.root.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// mountRoot makes the mount. To be read it leaves the container's writable layer
// to others, who may start the container meanwhile.
func mountRoot(m snapshot.Mount, o Options) (*os.File, error) {
	fd, err := -1, error(nil)
	switch {
	case o.Write && m.Dir == "":
		if o.Volatile { // see supervise.Rootfs
			if err := os.RemoveAll(filepath.Join(m.Work, "work", "incompat")); err != nil {
				return nil, err
			}
		}
		fd, err = overlayfs.Mount(overlayfs.Overlay{Lower: m.Lower, Upper: m.Upper, Work: m.Work, Users: o.Users}, 0)
	case o.Write:
		fd, err = overlayfs.BindFor(m.Dir, 0, o.Users)
	default:
		return ReadOnly(m, o.Users)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "cannot mount the container's root: %w", err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

// bind gives a mount its place in the container.
func (v *View) bind(source int, target string, write bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		return err
	}
	place, err := archive.OpenPlace(v.root, target, true)
	if errors.Is(err, fs.ErrNotExist) {
		if !write {
			return ErrNoPlace
		}
		place, err = archive.MakePlace(v.root, target, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	}
	if err != nil {
		return err
	}
	defer place.Close()
	err = unix.MoveMount(source, "", int(place.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// ReadOnly mounts a tree of layers to be read, at no place: as it is on disk, or
// shown to a user namespace.
func ReadOnly(m snapshot.Mount, users *overlayfs.Users) (*os.File, error) {
	fd, err := -1, error(nil)
	if trees := m.Trees(); len(trees) == 1 {
		fd, err = overlayfs.BindFor(trees[0], unix.MOUNT_ATTR_RDONLY, users)
	} else {
		fd, err = overlayfs.Mount(overlayfs.Overlay{Lower: trees, Shared: true, Users: users}, unix.MOUNT_ATTR_RDONLY)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "cannot mount the layers of an image: %w", err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}
