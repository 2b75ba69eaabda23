package volume

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/btrfs"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/treecopy"
)

// Populate copies what a directory of an image holds, and the attributes of the
// directory, to a volume that is empty: the first user of a volume finds in it what
// the volume hides. The user is the container, which has the volume mounted for
// the time.
//
// The copy is made beside the content and is moved to it when it is whole, so that
// whatever happens the volume is empty or has all of it. Nothing that is in the
// volume by then is overwritten.
func (s *Service) Populate(ctx context.Context, name, user string, from *os.File) (err error) {
	unlock, err := s.ops.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := s.find("get", name)
	if err != nil || r.Snapshot { // which stays as it is, also if that is empty
		return err
	}
	path, err := s.mountLocked(ctx, name, user)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.unmountLocked(context.WithoutCancel(ctx), name, user))
	}()
	p := s.population(&r, path)
	if err := p.recover(); err != nil {
		return err
	}
	empty, err := p.empty()
	if err != nil || !empty {
		return err
	}
	others := slices.DeleteFunc(s.usersOf()[name], func(id string) bool { return id == user })
	p.shared = p.inner || len(others) > 0
	return p.fill(ctx, from)
}

// population is a volume that is being filled.
type population struct {
	data   string // the volume's content
	beside string // where it is prepared, on the same file system
	prefix string // of what is not whole yet
	copied string // the name of what is
	inner  bool   // beside is data
	shared bool   // others may have the directory itself
}

// population looks where a copy is to be prepared: in the content itself if no
// file can be moved there from beside it, as it is a mount, a subvolume, or has a
// quota of its own.
func (s *Service) population(r *Record, path string) *population {
	if r.Driver == Local && !needsMount(r) && !apart(r, path) {
		return &population{data: path, beside: s.dir(r.Name), prefix: copyPrefix, copied: copiedName}
	}
	return &population{data: path, beside: path, prefix: innerCopyPrefix, copied: innerCopiedName, inner: true}
}

// apart tells whether nothing can be moved to a volume from beside it, by
// rename(2): a subvolume, or a directory with a bound of its own.
func apart(r *Record, data string) bool {
	if size, err := r.size(); size > 0 || err != nil {
		return true
	}
	dir, err := os.Open(data)
	if err != nil {
		return false // whoever needs it says so
	}
	defer dir.Close()
	return btrfs.IsSubvolume(int(dir.Fd()))
}

// recover finishes what a crash cut off: a part of a copy goes, one that was whole
// goes on into its place.
func (p *population) recover() error {
	entries, err := os.ReadDir(p.beside)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), p.prefix):
			if err := deltree.Remove(filepath.Join(p.beside, e.Name())); err != nil {
				return err
			}
		case e.Name() == p.copied && e.IsDir():
			if err := p.move(); err != nil {
				return err
			}
		}
	}
	return nil
}

// empty tells whether the volume has nothing.
func (p *population) empty() (bool, error) {
	dir, err := os.Open(p.data)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return err == nil && len(names) == 0, err
}

// fill makes the copy and moves it into place.
func (p *population) fill(ctx context.Context, from *os.File) error {
	stage := filepath.Join(p.beside, p.prefix+idgen.New()[:16])
	if err := os.Mkdir(stage, 0o700); err != nil {
		return err
	}
	to, err := openDirectory(stage)
	if err == nil {
		err = treecopy.Copy(ctx, to, from)
		to.Close()
	}
	if err == nil && p.shared {
		if err = os.Rename(stage, filepath.Join(p.beside, p.copied)); err == nil {
			return p.move()
		}
	} else if err == nil {
		// An empty directory gives way as a whole; one that is not empty any more
		// does not, and stays as it is.
		if err = unix.Rename(stage, p.data); err == nil {
			return nil
		}
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			err = nil
		}
	}
	return errors.Join(err, deltree.Remove(stage))
}

// move brings a whole copy into the volume, entry by entry, since others may have
// the directory.
func (p *population) move() error {
	copied := filepath.Join(p.beside, p.copied)
	from, err := openDirectory(copied)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(p.data)
	if err != nil {
		return err
	}
	defer to.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) { // a file system that does not know it
			err = renameUnlessThere(int(from.Fd()), int(to.Fd()), name)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fault.New(fault.Internal, "cannot put %s into the volume: %w", name, err)
		}
	}
	if err := treecopy.TakeAfter(int(to.Fd()), int(from.Fd()), &st); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(int(to.Fd()), ".", []unix.Timespec{st.Atim, st.Mtim}, 0); err != nil {
		return err
	}
	if err := deltree.Remove(copied); err != nil || !p.inner {
		return err
	}
	// Which was in it, and has changed its time.
	return treecopy.Times(to, &st)
}

// openDirectory opens a directory that lies where a container may put a link
// instead at any moment: in a volume that it has, too.
func openDirectory(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func renameUnlessThere(from, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(to, name, &st, unix.AT_SYMLINK_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
		return errors.Join(err, fs.ErrExist)
	}
	return unix.Renameat(from, name, to, name)
}
