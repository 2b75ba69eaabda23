package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	copy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/internal/overlayfs"
)

// A client's file that COPY leaves as it is becomes the layer's by a link from the
// shelf. What COPY means stays with fsutil/copy: it is shown a skeleton of what it
// copies, in memory, with all directories and no such file, and tells what became of
// each directory. The files come when the layer's own directory is nobody's upper
// directory any more (links.go). What is no such file is empty in the skeleton, and
// filled then.

// skeleton is what a name of the shelf looks like without what its files hold.
type skeleton struct {
	root string // where it is
	name string // what to copy of it
	dirs map[fileID]*shelfDir
	// files are those that have a place in it, though empty.
	files map[fileID]shelved
	top   *shelfDir // nil if name is a file
	made  []string  // directories of the tree that are copies of some in it

	owner *copy.User // whom all is to belong to; nil for whom it belongs to
	mode  int        // that all is to have; -1 for its own
}

// dressed is a file as it comes into the tree.
func (k *skeleton) dressed(f shelved) put {
	was := f.st
	if k.owner != nil {
		f.st.Uid, f.st.Gid = uint32(k.owner.UID), uint32(k.owner.GID)
	}
	if k.mode != -1 {
		f.st.Mode = f.st.Mode&^0o7777 | uint32(k.mode)&0o7777
	}
	return put{shelved: f, link: true, other: f.st.Uid != was.Uid || f.st.Gid != was.Gid || f.st.Mode != was.Mode}
}

// shelfDir is a directory on the shelf.
type shelfDir struct {
	path  string // on the shelf
	below string // from where the skeleton begins
	st    unix.Stat_t
	files []shelved // that may be linked
	rest  []shelved
}

// shelved is a file on the shelf.
type shelved struct {
	path, base string
	st         unix.Stat_t
	bare       bool // without attributes
}

// fileID tells files apart as fsutil/copy sees them.
type fileID struct{ dev, ino uint64 }

// linkWorth is from which size on a file that is copied alone is linked, in bytes.
const linkWorth = 128 << 10

// linkable tells whether the operation does nothing but copy from its inputs, so
// that nothing looks at what is put off, and gives the files no more than an owner and a mode.
func (f *filing) linkable(t *workTree, c *pb.FileActionCopy, from int) bool {
	if from < 0 || from >= len(f.inputs) || !f.inputs[from].shelved || t.links.mount.Upper == "" {
		return false
	}
	if c.ModeStr != "" || c.Timestamp != -1 || !c.DirCopyContents || c.AlwaysReplaceExistingDestPaths || len(c.IncludePatterns)+len(c.ExcludePatterns) > 0 {
		return false
	}
	for _, a := range f.op.Actions {
		c, ok := a.Action.(*pb.FileAction_Copy)
		if !ok || c.Copy.AttemptUnpackDockerCompatibility || int(a.SecondaryInput) >= len(f.inputs) {
			return false
		}
	}
	return true
}

var errOdd = errors.New("no skeleton shows the files as they are")

// skeleton makes that of a name without links on the way below a directory of the shelf.
// It is nil where that is not worth it.
func (s *Solver) skeleton(ctx context.Context, dir, name string) (*skeleton, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(at)
	fd, err := openat.Open(at, path.Join(".", name), unix.O_PATH|unix.O_NOFOLLOW, openat.Beneath|unix.RESOLVE_NO_SYMLINKS)
	if err != nil { // a link on the way
		return nil, nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp(s.placesDir(), "skeleton") // in memory, and gone with the thread's mounts
	if err != nil {
		return nil, err
	}
	k := &skeleton{root: root, mode: -1, dirs: map[fileID]*shelfDir{}, files: map[fileID]shelved{}}
	place := path.Join(dir, name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		k.name = "/"
		return k, k.grow(ctx, s.sums, fd, place, st)
	case unix.S_IFREG:
		k.name = path.Base(name)
		if st.Size < linkWorth || strings.HasPrefix(k.name, partial) {
			return nil, nil
		}
		return k, k.show(path.Join(root, k.name), shelved{place, k.name, st, attributes(place) == ""}, nil)
	}
	return nil, nil
}

// partial begins the names of files that the receiver has not got whole. They could
// still be written to.
const partial = ".tmp."

// grow makes the skeleton of a directory.
func (k *skeleton) grow(ctx context.Context, known *sums, fd int, place string, st unix.Stat_t) error {
	scan := &scanning{ctx: ctx, sums: known, names: map[uint64]int{}}
	if err := scan.directory(fd, place, "", st); err != nil {
		return err
	}
	first := map[uint64]string{} // where a file with several names is
	for _, d := range scan.dirs {
		own := path.Join(k.root, d.below)
		if d.below != "" {
			if err := unix.Mkdir(own, 0o700); err != nil {
				return &fs.PathError{Op: "mkdir", Path: own, Err: err}
			}
		}
		// Names of one file are the client's hard links: as they are.
		d.files = slices.DeleteFunc(d.files, func(f shelved) bool {
			several := scan.names[f.st.Ino] > 1
			if several {
				d.rest = append(d.rest, f)
			}
			return several
		})
		for _, f := range d.rest {
			if err := k.show(path.Join(own, f.base), f, first); err != nil {
				return err
			}
		}
	}
	for _, d := range slices.Backward(scan.dirs) { // what comes into one changes its time
		id, err := resemble(path.Join(k.root, d.below), &d.st)
		if err != nil {
			return err
		}
		k.dirs[id] = d
	}
	k.top = scan.dirs[0]
	return nil
}

// show gives a file a place in the skeleton. first are those with several names.
func (k *skeleton) show(own string, f shelved, first map[uint64]string) (err error) {
	if other, ok := first[f.st.Ino]; ok {
		return os.Link(other, own)
	}
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(f.path)
		if err == nil {
			err = os.Symlink(target, own)
		}
		if err != nil {
			return err
		}
	case unix.S_IFDIR:
		return errOdd
	default:
		if overlayfs.IsWhiteout(&f.st) {
			return errOdd
		}
		if err := unix.Mknod(own, f.st.Mode&^0o7777|0o600, int(f.st.Rdev)); err != nil {
			return &fs.PathError{Op: "mknod", Path: own, Err: err}
		}
	}
	if !f.bare {
		if err := copyAttributes(f.path, own); err != nil {
			return err
		}
	}
	id, err := resemble(own, &f.st)
	if err == nil && f.st.Mode&unix.S_IFMT == unix.S_IFREG {
		k.files[id] = f
	}
	if first != nil {
		first[f.st.Ino] = own
	}
	return err
}

// resemble gives what is in the skeleton the owner, the mode and the times of what it
// stands for.
func resemble(own string, st *unix.Stat_t) (id fileID, err error) {
	err = unix.Lchown(own, int(st.Uid), int(st.Gid))
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		err = errors.Join(err, unix.Chmod(own, st.Mode&0o7777))
	}
	var is unix.Stat_t
	err = errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, own, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW), unix.Lstat(own, &is))
	if err != nil {
		return id, &fs.PathError{Op: "copy", Path: own, Err: err}
	}
	return fileID{is.Dev, is.Ino}, nil
}

// copyAttributes copies extended attributes. Where the skeleton cannot have them there
// is none.
func copyAttributes(from, to string) error {
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(attributes(from), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return errOdd
		}
	}
	return nil
}

// scanning lists a directory of the shelf.
type scanning struct {
	ctx   context.Context
	sums  *sums
	dirs  []*shelfDir    // one before those in it
	names map[uint64]int // how many, by inode
}

func (s *scanning) directory(at int, place, below string, st unix.Stat_t) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if attributes(place) != "" {
		return errOdd
	}
	names, err := namesAt(at)
	if err != nil {
		return &fs.PathError{Op: "read", Path: place, Err: err}
	}
	d := &shelfDir{path: place, below: below, st: st}
	s.dirs = append(s.dirs, d)
	for _, name := range names {
		f := shelved{path: place + "/" + name, base: name}
		var x unix.Statx_t
		if err := unix.Statx(at, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x); err != nil {
			return &fs.PathError{Op: "stat", Path: f.path, Err: err}
		}
		f.st = statOf(&x)
		if f.st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return &fs.PathError{Op: "open", Path: f.path, Err: err}
			}
			err = s.directory(fd, f.path, path.Join(below, name), f.st)
			unix.Close(fd)
			if err != nil {
				return err
			}
			continue
		}
		s.names[f.st.Ino]++
		known, _ := s.sums.find(identify(&x))
		f.bare = known.bare || attributesAt(at, name) == ""
		if f.bare && f.st.Mode&unix.S_IFMT == unix.S_IFREG && !strings.HasPrefix(name, partial) {
			d.files = append(d.files, f)
		} else {
			d.rest = append(d.rest, f)
		}
	}
	return nil
}

// statOf is the part of what statx tells that stat does.
func statOf(x *unix.Statx_t) unix.Stat_t {
	return unix.Stat_t{Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Ino: x.Ino, Mode: uint32(x.Mode), Uid: x.Uid, Gid: x.Gid, Size: int64(x.Size),
		Rdev: unix.Mkdev(x.Rdev_major, x.Rdev_minor), Atim: unix.Timespec{Sec: x.Atime.Sec, Nsec: int64(x.Atime.Nsec)}, Mtim: unix.Timespec{Sec: x.Mtime.Sec, Nsec: int64(x.Mtime.Nsec)}}
}

// attributesAt are the names of the extended attributes of a name in a directory,
// which is open.
func attributesAt(dir int, name string) string {
	return attributes("/proc/self/fd/" + strconv.Itoa(dir) + "/" + name)
}

// attributes are the names of a file's extended attributes.
func attributes(name string) string {
	n, err := unix.Llistxattr(name, nil)
	if n == 0 || err == unix.ENOTSUP {
		return ""
	}
	buf := make([]byte, 64<<10)
	if n, err = unix.Llistxattr(name, buf); err != nil {
		return "unknown"
	}
	return string(buf[:n])
}
