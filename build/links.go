package build

import (
	"cmp"
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/snapshot"
)

// linking is what is put off until a tree becomes a layer.
type linking struct {
	mount snapshot.Mount
	files map[string]put // by where they belong
}

// put is a file that is to come.
type put struct {
	shelved
	link  bool // or else it has its place, where it is empty
	other bool // its owner or mode is not the one on the shelf
}

// note is told by fsutil/copy of all that it makes of a skeleton, or of a tree, for
// which k is nil.
func (l *linking) note(k *skeleton) fsutil.ChangeFunc {
	return func(_ fsutil.ChangeKind, name string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		name = path.Join("/", name)
		if _, ok := l.files[name]; ok {
			if fi.IsDir() {
				return fault.New(fault.Invalid, "cannot copy to non-directory: %s", name)
			}
			delete(l.files, name)
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok || k == nil {
			return nil
		}
		id := fileID{uint64(st.Dev), st.Ino}
		if d := k.dirs[id]; d != nil {
			l.want(name, k, d)
			k.made = append(k.made, name)
		} else if f, ok := k.files[id]; ok {
			p := k.dressed(f)
			p.link = k.top == nil && f.bare
			l.put(name, p)
		}
		return nil
	}
}

func (l *linking) put(name string, p put) {
	if l.files == nil {
		l.files = map[string]put{}
	}
	l.files[name] = p
}

// want has the files of a directory of the shelf come into a directory.
func (l *linking) want(name string, k *skeleton, d *shelfDir) {
	for _, f := range d.files {
		l.put(path.Join(name, f.base), k.dressed(f))
	}
}

// copied is told where the skeleton has been copied to, in the tree, when that is done.
// It finds what is in the way of files.
func (l *linking) copied(t *tree, k *skeleton, to string) error {
	if k.top != nil {
		f, err := t.openPath(to, true)
		if err != nil {
			return err
		}
		place, err := os.Readlink(fdPath(f))
		f.Close()
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(place+"/", t.path+"/")
		if !ok {
			return fault.New(fault.Internal, "%s is not below %s", place, t.path)
		}
		name = path.Join("/", name)
		l.want(name, k, k.top)
		k.made = append(k.made, name)
	}
	for _, dir := range k.made {
		entries, err := os.ReadDir(t.path + dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if name := path.Join(dir, e.Name()); e.IsDir() {
				if _, ok := l.files[name]; ok {
					return fault.New(fault.Invalid, "cannot replace to directory %s with file", name)
				}
			}
		}
	}
	return nil
}

// fill has the files that were put off in their places, and lists those that are
// links beside the tree: no layer above links them again, as one file under two names of an
// image is the same file to programs there. Nothing may be mounted from the tree.
func (l *linking) fill(ctx context.Context) error {
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
		if err := snapshot.ReadLinks(lower, taken); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(l.files))
	for name := range l.files {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(strings.Compare(path.Dir(a), path.Dir(b)), strings.Compare(a, b))
	})
	var list []byte
	at := &filling{root: int(root.Fd()), fd: -1, fromFD: -1}
	defer at.close()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := l.files[name]
		linked, err := at.place(name, f, taken[f.st.Ino])
		if err != nil {
			return &fs.PathError{Op: "copy", Path: name, Err: err}
		}
		if linked {
			taken[f.st.Ino] = true
			list = binary.LittleEndian.AppendUint64(list, f.st.Ino)
		}
	}
	if err := at.leave(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(filepath.Dir(l.mount.Upper), snapshot.LinksName), list, 0o600)
}

// filling is the directory that is being filled.
type filling struct {
	root int
	name string
	fd   int // -1 for none
	st   unix.Stat_t

	from   string // the directory of the shelf that files come from
	fromFD int    // -1 for none

	buf []byte // for what small files hold
}

// enter opens another directory.
func (d *filling) enter(name string) (err error) {
	if d.fd >= 0 && d.name == name {
		return nil
	}
	if err := d.leave(); err != nil {
		return err
	}
	fd, err := openat.Open(d.root, path.Join(".", name), unix.O_RDONLY|unix.O_DIRECTORY, openat.Beneath|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	d.name, d.fd = name, fd
	return unix.Fstat(fd, &d.st)
}

// leave gives the directory the time that it had.
func (d *filling) leave() error {
	if d.fd < 0 {
		return nil
	}
	err := unix.UtimesNanoAt(d.fd, "", []unix.Timespec{d.st.Atim, d.st.Mtim}, unix.AT_EMPTY_PATH)
	unix.Close(d.fd)
	d.fd = -1
	return err
}

func (d *filling) close() {
	d.forget()
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
}

// place has a file in its place, and tells whether it is a link. One that is taken is
// copied.
func (d *filling) place(name string, f put, taken bool) (linked bool, err error) {
	dir, base := path.Split(name)
	if err := d.enter(dir); err != nil {
		return false, err
	}
	if f.link {
		return d.replace(base, f.shelved, taken || f.other)
	}
	return false, d.content(base, f.path)
}

// replace has a link, or a file that is the same, in place of what is there.
func (d *filling) replace(base string, f shelved, taken bool) (linked bool, err error) {
	for again := false; ; again = true {
		linked = !taken
		if linked {
			err = d.link(base, f.path)
		}
		if !linked || err == unix.EMLINK || err == unix.EXDEV || err == unix.EPERM { // EXDEV also where quotas are kept
			linked, err = false, d.duplicate(base, f)
		}
		if err != unix.EEXIST || again {
			return linked, err
		}
		if err := unix.Unlinkat(d.fd, base, 0); err != nil {
			return false, err
		}
	}
}

// link links a file.
func (d *filling) link(base, from string) error {
	name, err := d.reach(from)
	if err != nil {
		return err
	}
	return unix.Linkat(d.fromFD, name, d.fd, base, 0)
}

// reach opens the directory of a file of the shelf, which is mostly that of the last one.
func (d *filling) reach(from string) (name string, err error) {
	dir, name := path.Split(from)
	if dir != d.from || d.fromFD < 0 {
		d.forget()
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		d.from, d.fromFD = dir, fd
	}
	return name, nil
}

// forget closes the directory of the shelf.
func (d *filling) forget() {
	if d.fromFD >= 0 {
		unix.Close(d.fromFD)
	}
	d.fromFD = -1
}

// duplicate writes a file like the one on the shelf, which has no attributes.
func (d *filling) duplicate(base string, f shelved) error {
	fd, err := unix.Openat(d.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, int(f.st.Uid), int(f.st.Gid)); err != nil {
		unix.Close(fd)
		return err
	}
	small, err := d.small(fd, f)
	if err != nil {
		unix.Close(fd)
		return err
	}
	if !small {
		return pour(fd, f.path, &f.st)
	}
	defer unix.Close(fd)
	return complete(fd, &f.st)
}

// small writes what a file holds, if the buffer holds all of it. Of many small files most
// would go to what an os.File asks about each, and to the pipe by which the kernel copies ranges.
func (d *filling) small(fd int, f shelved) (bool, error) {
	if d.buf == nil {
		d.buf = make([]byte, 64<<10)
	}
	if f.st.Size >= int64(len(d.buf)) {
		return false, nil
	}
	name, err := d.reach(f.path)
	if err != nil {
		return false, err
	}
	from, err := unix.Openat(d.fromFD, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(from)
	n, err := unix.Read(from, d.buf)
	if err != nil || int64(n) != f.st.Size {
		return false, err
	}
	for text := d.buf[:n]; len(text) > 0; text = text[n:] {
		if n, err = unix.Write(fd, text); err != nil {
			return false, err
		}
	}
	return true, nil
}

// content fills a file that is in its place, unless it is filled under another name.
func (d *filling) content(base, from string) error {
	fd, err := unix.Openat(d.fd, base, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size > 0 {
		unix.Close(fd)
		return err
	}
	return pour(fd, from, &st)
}

// pour writes what is in a file to the descriptor, closes it, and sets mode and times.
func pour(fd int, from string, st *unix.Stat_t) error {
	to := os.NewFile(uintptr(fd), from)
	defer to.Close()
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(to, file); err != nil {
		return err
	}
	return complete(fd, st)
}

// complete sets the mode and the times of a file that is written.
func complete(fd int, st *unix.Stat_t) error {
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil { // writing takes the set-id bits
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}
