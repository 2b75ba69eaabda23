package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"
	copy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// What COPY means, wildcards, patterns and modes, has one definition, BuildKit's
// package fsutil/copy. It works on paths, so it is given trees that nobody else
// can change or reach: mounts of our own, without device files, in a mount
// namespace of one thread.

// place resolves a path of the tree, following links inside, but for the last
// part if it is a link that should be replaced. What is missing is no error.
func (t *tree) place(name string) (parent *os.File, base string, err error) {
	name = path.Join("/", name)
	dir, base := path.Split(name)
	if base == "" {
		return nil, "", fault.New(fault.Invalid, "the root directory cannot be replaced")
	}
	parent, err = t.openPath(dir, true)
	return parent, base, err
}

func moment(ns int64) *time.Time {
	if ns == -1 {
		return nil
	}
	t := time.Unix(ns/1e9, ns%1e9)
	return &t
}

// owner resolves --chown: a number, or a name that is looked up in the tree.
func (f *filing) owner(ctx context.Context, t *workTree, o *pb.ChownOpt) (copy.Chowner, error) {
	if o == nil {
		return func(u *copy.User) (*copy.User, error) {
			if u == nil { // made here
				return &copy.User{}, nil
			}
			return u, nil
		}, nil
	}
	uid, gid, err := f.userID(ctx, t, o.User)
	if err != nil {
		return nil, err
	}
	if o.Group != nil {
		if gid, err = f.groupID(ctx, t, o.Group); err != nil {
			return nil, err
		}
	}
	return func(*copy.User) (*copy.User, error) { return &copy.User{UID: uid, GID: gid}, nil }, nil
}

func (f *filing) userID(ctx context.Context, t *workTree, o *pb.UserOpt) (uid, gid int, err error) {
	switch u := o.GetUser().(type) {
	case *pb.UserOpt_ByID:
		return int(u.ByID), int(u.ByID), nil
	case *pb.UserOpt_ByName:
		id, err := f.identity(ctx, t, u.ByName, u.ByName.Name)
		return int(id.UID), int(id.GID), err
	}
	return 0, 0, nil
}

func (f *filing) groupID(ctx context.Context, t *workTree, o *pb.UserOpt) (int, error) {
	switch u := o.GetUser().(type) {
	case *pb.UserOpt_ByID:
		return int(u.ByID), nil
	case *pb.UserOpt_ByName:
		id, err := f.identity(ctx, t, u.ByName, "0:"+u.ByName.Name)
		return int(id.GID), err
	}
	return 0, nil
}

// mkdir makes a directory; one that is there stays as it is.
func (f *filing) mkdir(ctx context.Context, t *workTree, a *pb.FileActionMkDir) error {
	chown, err := f.owner(ctx, t, a.Owner)
	if err != nil {
		return err
	}
	parts := strings.Split(strings.Trim(path.Join("/", a.Path), "/"), "/")
	for i := range parts {
		last := i == len(parts)-1
		if parts[i] == "" || !last && !a.MakeParents {
			continue
		}
		if err := t.tree.makeDir("/"+path.Join(parts[:i+1]...), os.FileMode(a.Mode)&0o777, chown, moment(a.Timestamp)); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) makeDir(name string, mode fs.FileMode, chown copy.Chowner, when *time.Time) error {
	if f, err := t.openPath(name, true); err == nil {
		return f.Close()
	}
	parent, base, err := t.place(name)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), base, uint32(mode)); err != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return finish(parent, base, uint32(mode), chown, when)
}

// finish gives what was just made its mode, owner and time.
func finish(parent *os.File, base string, mode uint32, chown copy.Chowner, when *time.Time) error {
	u, err := chown(nil)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(int(parent.Fd()), base, u.UID, u.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "chown", Path: base, Err: err}
	}
	if mode != 0 {
		if err := unix.Fchmodat(int(parent.Fd()), base, mode, 0); err != nil {
			return &fs.PathError{Op: "chmod", Path: base, Err: err}
		}
	}
	if when == nil {
		return nil
	}
	ts := unix.NsecToTimespec(when.UnixNano())
	if err := unix.UtimesNanoAt(int(parent.Fd()), base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: base, Err: err}
	}
	return nil
}

// mkfile writes a file in place of what is there.
func (f *filing) mkfile(ctx context.Context, t *workTree, a *pb.FileActionMkFile) error {
	chown, err := f.owner(ctx, t, a.Owner)
	if err != nil {
		return err
	}
	parent, base, err := t.tree.place(a.Path)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Unlinkat(int(parent.Fd()), base, 0); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "replace", Path: a.Path, Err: err}
	}
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: a.Path, Err: err}
	}
	file := os.NewFile(uintptr(fd), a.Path)
	_, err = file.Write(a.Data)
	if err := errors.Join(err, file.Chmod(os.FileMode(a.Mode)&0o777), file.Close()); err != nil {
		return err
	}
	return finish(parent, base, 0, chown, moment(a.Timestamp))
}

// symlink makes a symbolic link.
func (f *filing) symlink(ctx context.Context, t *workTree, a *pb.FileActionSymlink) error {
	chown, err := f.owner(ctx, t, a.Owner)
	if err != nil {
		return err
	}
	parent, base, err := t.tree.place(a.Newpath)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Symlinkat(a.Oldpath, int(parent.Fd()), base); err != nil {
		return &fs.PathError{Op: "symlink", Path: a.Newpath, Err: err}
	}
	return finish(parent, base, 0, chown, moment(a.Timestamp))
}

// remove deletes what a pattern names.
func (f *filing) remove(t *workTree, a *pb.FileActionRm) error {
	names := []string{path.Join("/", a.Path)}
	if a.AllowWildcard {
		var err error
		if names, err = t.tree.glob(a.Path); err != nil {
			return err
		}
	}
	for _, name := range names {
		parent, base, err := t.tree.place(name)
		if errors.Is(err, fs.ErrNotExist) && a.AllowNotFound {
			continue
		}
		if err != nil {
			return err
		}
		err = removeBelow(parent, base, a.AllowNotFound)
		parent.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func removeBelow(parent *os.File, base string, missingOK bool) error {
	dir, err := os.OpenRoot(fdPath(parent))
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := dir.Lstat(base); err != nil {
		if errors.Is(err, fs.ErrNotExist) && missingOK {
			return nil
		}
		return err
	}
	return dir.RemoveAll(base)
}

// copy copies from another tree.
func (f *filing) copy(ctx context.Context, t *workTree, a *pb.FileAction, c *pb.FileActionCopy) error {
	chown, err := f.owner(ctx, t, c.Owner)
	if err != nil {
		return err
	}
	from, done, err := f.secondary(ctx, a)
	if err != nil {
		return err
	}
	defer done()
	src, dst := clean(c.Src), clean(c.Dest)
	if !c.CreateDestPath {
		parent, err := t.tree.openPath(path.Dir(path.Join("/", dst)), true)
		if err != nil {
			return fmt.Errorf("failed to stat %s: %w", c.Dest, err)
		}
		parent.Close()
	}
	names := []string{src}
	if c.AllowWildcard {
		if names, err = copy.ResolveWildcards(from.path, src, c.FollowSymlink); err != nil {
			return f.inside(err, from, t.tree)
		}
		if len(names) == 0 && !c.AllowEmptyWildcard {
			return fault.New(fault.NotFound, "%s not found", src)
		}
	}
	for _, name := range names {
		if c.AttemptUnpackDockerCompatibility {
			if ok, err := f.unpack(ctx, from, name, t.tree, dst, chown); ok || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
		if err := f.copyOne(ctx, t, a, c, from, name, dst, chown); err != nil {
			return f.inside(err, from, t.tree)
		}
	}
	return nil
}

// copyOne copies one name of another tree.
func (f *filing) copyOne(ctx context.Context, t *workTree, a *pb.FileAction, c *pb.FileActionCopy, from *tree, name, dst string, chown copy.Chowner) error {
	if n := int(a.SecondaryInput); f.linkable(t, c, n) {
		// Where there is no skeleton of it, it is copied.
		if k, err := f.job.solver.skeleton(ctx, f.inputs[n].dir, name); err == nil && k != nil {
			if k.mode = int(c.Mode); c.Owner != nil {
				if k.owner, err = chown(nil); err != nil {
					return err
				}
			}
			if err := copy.Copy(ctx, k.root, k.name, t.tree.path, dst, copyOptions(c, chown, t.links.note(k))); err != nil {
				return f.inside(err, &tree{path: k.root})
			}
			return t.links.copied(t.tree, k, dst)
		}
	}
	return copy.Copy(ctx, from.path, name, t.tree.path, dst, copyOptions(c, chown, t.links.note(nil)))
}

// clean keeps the slash at the end, which says that a directory is meant.
func clean(name string) string {
	cleaned := path.Clean(name)
	if strings.HasSuffix(name, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}

func copyOptions(c *pb.FileActionCopy, chown copy.Chowner, note fsutil.ChangeFunc) copy.Opt {
	return func(o *copy.CopyInfo) {
		o.IncludePatterns, o.ExcludePatterns = c.IncludePatterns, c.ExcludePatterns
		o.Chown, o.Utime, o.ChangeFunc = chown, moment(c.Timestamp), note
		if c.ModeStr != "" {
			o.ModeStr = c.ModeStr
		} else if mode := int(c.Mode); mode != -1 {
			o.Mode = &mode
		}
		o.CopyDirContents, o.FollowLinks = c.DirCopyContents, c.FollowSymlink
		o.AlwaysReplaceExistingDestPaths = c.AlwaysReplaceExistingDestPaths
		o.XAttrErrorHandler = func(string, string, string, error) error { return nil } // as far as the file system goes
	}
}

// inside takes our own names of the trees out of an error.
func (f *filing) inside(err error, trees ...*tree) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		for _, t := range trees {
			pe.Path = strings.TrimPrefix(pe.Path, t.path)
		}
	}
	return err
}

// secondary opens the tree that an action copies from.
func (f *filing) secondary(ctx context.Context, a *pb.FileAction) (*tree, func(), error) {
	n := int(a.SecondaryInput)
	switch {
	case n < 0 || n >= len(f.inputs)+len(f.trees):
		return nil, nil, fault.New(fault.Invalid, "an action of a file operation has nothing to copy from")
	case n >= len(f.inputs):
		t := f.trees[n-len(f.inputs)]
		if t == nil {
			return nil, nil, fault.New(fault.NotImplemented, "an action copies from a tree that another goes on with")
		}
		return t.tree, func() {}, nil
	}
	solver := f.job.solver
	t, err := solver.openAs(ctx, f.inputs[n], unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := t.attach(solver.placesDir()); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	return t, func() { t.Close() }, nil
}
