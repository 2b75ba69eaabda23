package build

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/snapshot"
)

// A large file of a client's that COPY leaves as it is becomes the layer's by a link
// from the shelf. What COPY means stays with fsutil/copy: it is shown the shelf
// below an overlay in which the large files are empty, and what it made of those is
// replaced when the layer's own directory is nobody's upper directory any more.

// linkWorth is from which size on a file is worth it.
const linkWorth = 128 << 10

// shelved is a file on the shelf.
type shelved struct {
	path string
	st   unix.Stat_t
}

// fileID tells files apart as fsutil/copy sees them.
type fileID struct{ dev, ino uint64 }

// linking is what is put off until a tree becomes a layer.
type linking struct {
	mount snapshot.Mount
	files map[string]shelved // by where they belong
}

// linkable tells whether the operation does nothing but copy from its inputs, so
// that nothing looks at what is put off.
func (f *filing) linkable(t *workTree, from *output) bool {
	if !from.shelved || t.links.mount.Upper == "" {
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

// large lists the files of a shelf's directory that may be linked, those below a
// path alone. It is none if an overlay would not show the directory as it is.
func large(dir, below string) (list []shelved, err error) {
	seen := map[uint64]int{} // how often, by inode
	var others []string      // whose attributes may be words to overlayfs
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: name, Err: err}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR: // a whiteout, perhaps
			return errUnshown
		case unix.S_IFREG:
			seen[st.Ino]++
			// What is named as the receiver names what is not whole yet could be written to.
			if st.Size >= linkWorth && isBelow(strings.TrimPrefix(name, dir), below) && !strings.HasPrefix(e.Name(), ".tmp.") {
				list = append(list, shelved{name, st})
				return nil
			}
		}
		others = append(others, name)
		return nil
	})
	// Names of one file are the client's hard links: copied, as they are. With attributes, too.
	list = slices.DeleteFunc(list, func(s shelved) bool { return seen[s.st.Ino] > 1 || attributes(s.path) != "" })
	if err != nil || len(list) == 0 {
		return nil, err
	}
	for _, name := range others {
		if strings.Contains(attributes(name), "overlay") {
			return nil, errUnshown
		}
	}
	return list, nil
}

var errUnshown = errors.New("no overlay shows the files as they are")

func isBelow(name, dir string) bool { return dir == "/" || strings.HasPrefix(name+"/", dir+"/") }

// attributes are the names of a file's extended attributes.
func attributes(name string) string {
	n, err := unix.Llistxattr(name, nil)
	if n == 0 || err == unix.ENOTSUP {
		return ""
	}
	buf := make([]byte, 64<<10)
	if n, err = unix.Llistxattr(name, buf); err != nil {
		return "overlay, as far as is known"
	}
	return string(buf[:n])
}

// shadow shows a directory of the shelf with its large files empty, and tells which
// those are. It is nil if there is none.
func (s *Solver) shadow(dir, src string) (*tree, map[fileID]shelved, error) {
	list, err := large(dir, fixed(src))
	if err != nil || len(list) == 0 {
		return nil, nil, err
	}
	own, err := os.MkdirTemp(s.placesDir(), "shadow") // in memory, and gone with the thread's mounts
	if err != nil {
		return nil, nil, err
	}
	o := overlayfs.Overlay{Lower: []string{dir}, Upper: filepath.Join(own, "upper"), Work: filepath.Join(own, "work"), Volatile: true}
	if err := errors.Join(os.Mkdir(o.Upper, 0o755), os.Mkdir(o.Work, 0o700), sameRoot(o.Upper, dir)); err != nil {
		return nil, nil, err
	}
	fd, err := overlayfs.Mount(o, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, nil, err
	}
	t := &tree{root: os.NewFile(uintptr(fd), "/")}
	if err := t.attach(s.placesDir()); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	files := map[fileID]shelved{}
	for _, f := range list {
		id, err := emptied(t.path+strings.TrimPrefix(f.path, dir), &f.st)
		if err != nil {
			return nil, nil, errors.Join(err, t.Close())
		}
		files[id] = f
	}
	return t, files, nil
}

// fixed is the part of a pattern before its first wildcard.
func fixed(pattern string) string {
	pattern = path.Join("/", pattern)
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		pattern = path.Dir(pattern[:i] + "x")
	}
	return pattern
}

// sameRoot gives the root of an overlay the attributes of the one below.
func sameRoot(upper, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	if err := errors.Join(unix.Chown(upper, int(st.Uid), int(st.Gid)), unix.Chmod(upper, st.Mode&0o7777)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, upper, []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// emptied truncates the overlay's copy of a file, which so is never made whole.
func emptied(name string, was *unix.Stat_t) (fileID, error) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fileID{}, &fs.PathError{Op: "truncate", Path: name, Err: err}
	}
	err = errors.Join(unix.Fchmod(fd, was.Mode&0o7777), unix.Close(fd),
		unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{was.Atim, was.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
	var st unix.Stat_t
	if err := errors.Join(err, unix.Lstat(name, &st)); err != nil {
		return fileID{}, &fs.PathError{Op: "truncate", Path: name, Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// note is told by fsutil/copy of all that it makes.
func (l *linking) note(files map[fileID]shelved) fsutil.ChangeFunc {
	return func(_ fsutil.ChangeKind, name string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		name = path.Join("/", name)
		delete(l.files, name)
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if f, ok := files[fileID{uint64(st.Dev), st.Ino}]; ok {
			if l.files == nil {
				l.files = map[string]shelved{}
			}
			l.files[name] = f
		}
		return nil
	}
}

// linksName is the list of the shelf's files that a layer has, beside its tree:
// their inodes, eight bytes each, little-endian. No layer above links them again,
// as one file under two names of an image is the same file to programs there.
const linksName = snapshot.LinksName

// fill has the files that were put off in their places. Nothing may be mounted
// from the tree.
func (l *linking) fill(ctx context.Context, s *sums) error {
	if len(l.files) == 0 {
		return nil
	}
	root, err := os.Open(l.mount.Upper)
	if err != nil {
		return err
	}
	defer root.Close()
	taken := map[uint64]bool{}
	for _, lower := range l.mount.Lower {
		if err := readLinks(filepath.Join(filepath.Dir(lower), linksName), taken); err != nil {
			return err
		}
	}
	var list []byte
	for name, f := range l.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		linked, err := l.place(root, name, f, taken[f.st.Ino])
		if err != nil {
			return &fs.PathError{Op: "copy", Path: name, Err: err}
		}
		if linked {
			taken[f.st.Ino] = true
			list = binary.LittleEndian.AppendUint64(list, f.st.Ino)
			s.follow(f)
		}
	}
	return os.WriteFile(filepath.Join(filepath.Dir(l.mount.Upper), linksName), list, 0o600)
}

func readLinks(name string, taken map[uint64]bool) error {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for ; len(data) >= 8; data = data[8:] {
		taken[binary.LittleEndian.Uint64(data)] = true
	}
	return err
}

// place puts one file in the place of the empty one.
func (l *linking) place(root *os.File, name string, f shelved, taken bool) (linked bool, err error) {
	dir, base := path.Split(name)
	fd, err := openat.Open(int(root.Fd()), path.Join(".", dir), unix.O_RDONLY|unix.O_DIRECTORY, openat.InRoot)
	if err == unix.ENOENT || err == unix.ENOTDIR { // something else was copied over it
		return false, nil
	}
	if err != nil {
		return false, err
	}
	parent := os.NewFile(uintptr(fd), dir)
	defer parent.Close()
	var above, st unix.Stat_t
	if err := unix.Fstat(fd, &above); err != nil {
		return false, err
	}
	err = unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT || err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	same := st.Mode == f.st.Mode && st.Uid == f.st.Uid && st.Gid == f.st.Gid && st.Mtim == f.st.Mtim && st.Dev == f.st.Dev
	if same && !taken && attributes(filepath.Join(fdPath(parent), base)) == "" && l.link(fd, base, f) {
		return true, unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(parent), []unix.Timespec{above.Atim, above.Mtim}, 0)
	}
	return false, content(fd, base, f, &st)
}

// link replaces the empty file, and tells whether the file system lets it.
func (l *linking) link(parent int, base string, f shelved) bool {
	own := filepath.Join(l.mount.Work, "link")
	if err := unix.Linkat(unix.AT_FDCWD, f.path, unix.AT_FDCWD, own, 0); err != nil { // as EMLINK, or EXDEV where quotas are kept
		return false
	}
	if err := unix.Renameat(unix.AT_FDCWD, own, parent, base); err != nil {
		_ = unix.Unlink(own)
		return false
	}
	return true
}

// content fills the empty file.
func content(parent int, base string, f shelved, st *unix.Stat_t) error {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), base)
	defer to.Close()
	from, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer from.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(parent, base, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
