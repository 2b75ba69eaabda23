package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/thread"
	"github.com/tarehq/tare/snapshot"
)

// tree is a directory with all below it, to read or to change, reached through
// its root's descriptor alone. It may be hostile: links are followed inside only.
type tree struct {
	root *os.File
	path string // where it is mounted, if somewhere: see inPlace
}

// Close lets it go. A process that is being started has copies of all descriptors
// until it executes its program, so the mount may be busy for that long: it is
// detached, and ends with the last of them.
func (t *tree) Close() error {
	err := t.root.Close()
	if t.path != "" {
		err = errors.Join(err, os.NewSyscallError("umount", unix.Unmount(t.path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)), os.Remove(t.path))
	}
	return err
}

// Root is the root directory as a place (O_PATH).
func (t *tree) Root() *os.File { return t.root }

// open opens an output to read.
func (s *Solver) open(ctx context.Context, o *output) (*tree, error) {
	if o.dir != "" {
		f, err := os.Open(o.dir)
		return &tree{root: f}, err
	}
	return s.openAs(ctx, o, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, nil)
}

// openAs opens an output to read as a mount with the MOUNT_ATTR_ flags, shown to users.
func (s *Solver) openAs(ctx context.Context, o *output, attr int, users *overlayfs.Users) (*tree, error) {
	if o.dir != "" {
		return mountedAs(snapshot.Mount{Dir: o.dir, ReadOnly: true}, attr, users)
	}
	m, err := s.Store.View(ctx, o.chain())
	if err != nil {
		return nil, err
	}
	return mountedAs(m, attr, users)
}

// mounted opens what a mount shows, as a mount that no path leads to.
func mounted(m snapshot.Mount) (*tree, error) {
	return mountedAs(m, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, nil)
}

// mountedAs does so with the MOUNT_ATTR_ flags, shown to users.
func mountedAs(m snapshot.Mount, attr int, users *overlayfs.Users) (*tree, error) {
	fd := -1
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	var err error
	switch {
	case m.Dir != "":
		fd, err = overlayfs.BindFor(m.Dir, attr, users)
	case m.Upper == "" && len(m.Lower) == 1:
		fd, err = overlayfs.BindFor(m.Lower[0], attr|unix.MOUNT_ATTR_RDONLY, users)
	default:
		fd, err = overlayfs.Mount(overlayfs.Overlay{Lower: m.Lower, Upper: m.Upper, Work: m.Work, Volatile: m.Upper != "", Users: users}, attr)
	}
	if err != nil {
		return nil, err
	}
	return &tree{root: os.NewFile(uintptr(fd), "/")}, nil
}

// openPath opens a file below the root as a place (O_PATH).
func (t *tree) openPath(name string, follow bool) (*os.File, error) {
	flags := uint64(unix.O_PATH)
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	name = path.Join("/", name)
	fd, err := openat.Open(int(t.root.Fd()), strings.TrimPrefix(name, "/")+dotFor(name), flags, openat.InRoot)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func dotFor(name string) string {
	if name == "/" {
		return "."
	}
	return ""
}

// glob lists the names that a pattern fits, sorted; a pattern without wildcards
// names itself. Links on the way are followed.
func (t *tree) glob(pattern string) ([]string, error) {
	pattern = path.Join("/", pattern)
	names := []string{"/"}
	for _, part := range strings.Split(strings.Trim(pattern, "/"), "/") {
		if part == "" {
			continue
		}
		var next []string
		for _, dir := range names {
			if !strings.ContainsAny(part, "*?[\\") {
				next = append(next, path.Join(dir, part))
				continue
			}
			fitting, err := t.fitting(dir, part)
			if err != nil {
				return nil, err
			}
			next = append(next, fitting...)
		}
		names = next
	}
	return names, nil
}

func (t *tree) fitting(dir, pattern string) (list []string, err error) {
	f, err := t.openPath(dir, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := readNames(f)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	for _, name := range names {
		ok, e := path.Match(pattern, name)
		if e != nil {
			return nil, fault.New(fault.Invalid, "invalid pattern %q: %w", pattern, e)
		}
		if ok {
			list = append(list, path.Join(dir, name))
		}
	}
	return list, err
}

// inPlace calls do on a thread that has a mount namespace of its own, in which
// dir, an empty directory, is a place for mounts that nobody else sees and that
// end with do.
func inPlace(dir string, do func() error) (err error) {
	thread.Own(func() bool {
		if err = ownMounts(dir); err == nil {
			err = do()
		}
		return false
	})
	return err
}

func ownMounts(dir string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return os.NewSyscallError("mount", unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"))
}

// attach gives a mounted tree a path, for those who need one. It is called, and
// the tree is closed, by what inPlace calls.
func (t *tree) attach(dir string) error {
	path, err := os.MkdirTemp(dir, "")
	if err != nil {
		return err
	}
	if err := unix.MoveMount(int(t.root.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	t.path = path
	return nil
}
