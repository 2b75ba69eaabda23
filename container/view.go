package container

import (
	"context"
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
	"github.com/tarehq/tare/supervise"
)

// view is a container's root with what is mounted in it, to be worked on by
// descriptors below root alone.
type view struct {
	root    *os.File // a place (O_PATH)
	mounts  *os.File // the mount namespace that keeps the root of a container that does not run; else nil
	sources *sources // what is mounted in that one
	unlock  func()
}

// close lets the root go: first the mounts, then the container.
func (v *view) close() {
	v.root.Close()
	if v.mounts != nil {
		v.mounts.Close()
	}
	if v.sources != nil {
		v.sources.close()
	}
	if v.unlock != nil {
		v.unlock()
	}
}

// view opens the root of a container: as its processes have it, or if it does not
// run as Docker has it then, with its bind mounts and the engine's files, without
// what is in memory. No operation on a container is waited for or kept waiting, but
// by a view to write into one that does not run.
func (f *Files) view(ctx context.Context, r Record, write bool) (*view, error) {
	s := f.containers
	for {
		v, err := f.liveView(ctx, r)
		if v != nil || err != nil {
			return v, err
		}
		if !write {
			v, err := f.mountedView(ctx, &r, false)
			if err != nil {
				if _, gone := s.store.find(r.ID); gone != nil { // and its layer with it
					return nil, gone
				}
			}
			if !errors.Is(err, errNoPlace) {
				return v, err
			}
		}
		locked, unlock, err := s.lock(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		if r = locked; r.State.Up() { // it started meanwhile
			unlock()
			continue
		}
		v, err = f.mountedView(ctx, &r, true)
		if err != nil {
			unlock()
			return nil, err
		}
		v.unlock = unlock
		return v, nil
	}
}

// liveView opens the root of a container that runs; nil and nil when it does not.
func (f *Files) liveView(ctx context.Context, r Record) (*view, error) {
	s := f.containers
	for r.State.Up() {
		root, err := supervise.OpenRoot(s.bundles.path(r.ID))
		if err == nil {
			return &view{root: root}, nil
		}
		if !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.NotFound) {
			return nil, err
		}
		// Its process has ended, and that will be on record soon.
		if _, ended, err := s.lives.running(r); err == nil {
			select {
			case <-ended:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		} else if !errors.Is(err, fault.Conflict) {
			return nil, err
		}
		if r, err = s.store.find(r.ID); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// errNoPlace tells that something is to be mounted where the root has nothing.
var errNoPlace = errors.New("the root has no place for a mount")

// mountedView mounts the root of a container that does not run, in a mount
// namespace of its own that nobody else sees. To be written to it needs the
// operation lock; otherwise nothing of it is changed.
func (f *Files) mountedView(ctx context.Context, r *Record, write bool) (*view, error) {
	root, err := f.containers.rootOf(ctx, r)
	if err != nil {
		return nil, err
	}
	sources := &sources{containers: f.containers, r: r}
	if r.Users != nil {
		made, err := userns.Make(r.Users, false)
		if err != nil {
			return nil, err
		}
		defer made.Close()
		sources.users = seenBy(r.Users, made.User)
	}
	if err := sources.open(ctx); err != nil {
		return nil, errors.Join(err, sources.close())
	}
	var v *view
	thread.Own(func() bool {
		v, err = mountView(root, sources, r, write)
		return false // the thread ends, the namespace with the view
	})
	if err != nil {
		return nil, errors.Join(err, sources.close())
	}
	v.sources = sources
	return v, nil
}

// mountView is to be called by a thread that is used for nothing else after.
func mountView(root snapshot.Mount, sources *sources, r *Record, write bool) (*view, error) {
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
	v := &view{mounts: mounts}
	if v.root, err = mountedRoot(root, sources.users, r.autoRemove(), write); err != nil {
		return nil, errors.Join(err, mounts.Close())
	}
	// On the namespace's own root, which is looked at no more: only the descriptor
	// leads there.
	err = unix.MoveMount(int(v.root.Fd()), "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if users := sources.users; err == nil && users != nil {
		_, err = userns.Act(users.UID, users.GID)
	}
	binds := sources.list
	for i := 0; err == nil && i < len(binds); i++ {
		err = v.bind(int(binds[i].tree.Fd()), binds[i].target, write)
	}
	if err == nil && r.HostConfig.ReadonlyRootfs {
		err = unix.MountSetattr(int(v.root.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// mountedRoot makes the mount. To be read it leaves the container's writable layer
// to others, who may start the container meanwhile.
func mountedRoot(m snapshot.Mount, users *overlayfs.Users, volatile, write bool) (*os.File, error) {
	fd, err := -1, error(nil)
	switch {
	case write && m.Dir == "":
		if volatile { // see supervise.Rootfs
			if err := os.RemoveAll(filepath.Join(m.Work, "work", "incompat")); err != nil {
				return nil, err
			}
		}
		fd, err = overlayfs.Mount(overlayfs.Overlay{Lower: m.Lower, Upper: m.Upper, Work: m.Work, Users: users}, 0)
	case write:
		fd, err = overlayfs.BindFor(m.Dir, 0, users)
	default:
		return readOnlyRoot(m, users)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "cannot mount the container's root: %w", err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

// bind gives a mount its place in the container.
func (v *view) bind(source int, target string, write bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		return err
	}
	place, err := archive.OpenPlace(v.root, target, true)
	if errors.Is(err, fs.ErrNotExist) {
		if !write {
			return errNoPlace
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
