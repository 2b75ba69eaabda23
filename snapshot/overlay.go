package snapshot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/deltree"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/spread"
)

// overlay keeps each layer's own files, with overlayfs's whiteouts, and a
// container's changes apart from them.
type overlay struct {
	store  *Store
	spares *spares
}

func (o *overlay) check(fresh bool) error {
	if fresh {
		if err := overlayWorks(o.store.root); err != nil {
			return fault.New(fault.Invalid, "the file system of %s cannot hold the layers of overlay mounts (%w): choose the storage driver vfs, or btrfs where the file system is btrfs", o.store.root, err)
		}
	}
	return nil
}

func (o *overlay) start() error {
	if err := os.MkdirAll(o.store.path("spare"), 0o755); err != nil {
		return err
	}
	spread.Children(o.store.path("spare"))
	var err error
	o.spares, err = newSpares(o.store.path("spare"), o.store.makePair)
	return err
}

func (o *overlay) close() { o.spares.close() }

func (o *overlay) independent() bool { return true }

func (o *overlay) status() [][2]string { return nil }

func (o *overlay) begin(dir, _ string) error {
	tree := filepath.Join(dir, "fs")
	return errors.Join(os.Mkdir(tree, 0o755), os.Chmod(tree, 0o755))
}

func (o *overlay) apply(ctx context.Context, dir string, r io.Reader, over bool) (archive.Stats, error) {
	w := archive.DropWhiteouts
	if over {
		w = archive.OverlayWhiteouts
	}
	return extract(ctx, filepath.Join(dir, "fs"), r, w)
}

// extract extracts the archive, and reads r to its end, past that of the
// archive.
func extract(ctx context.Context, tree string, r io.Reader, w archive.Whiteouts) (archive.Stats, error) {
	root, err := os.Open(tree)
	if err != nil {
		return archive.Stats{}, err
	}
	defer root.Close()
	// Headers are read 512 bytes at a time; large data passes the buffer by. Who
	// can write itself has its bytes at hand.
	if _, ok := r.(io.WriterTo); !ok {
		r = bufio.NewReaderSize(r, 256<<10)
	}
	stats, err := archive.Extract(ctx, root, r, archive.Options{Whiteouts: w})
	if err != nil {
		return stats, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return stats, fmt.Errorf("cannot read the archive: %w", err)
	}
	return stats, nil
}

// settle gives the directories that the archive had no entry for the attributes
// that the layers below know, as overlayfs shows those of the topmost layer
// that has the directory.
func (o *overlay) settle(dir string, stats archive.Stats, below []string) error {
	if len(below) == 0 || stats.Root && len(stats.Implicit)+len(stats.Hiding) == 0 {
		return nil
	}
	tree := filepath.Join(dir, "fs")
	if !stats.Root {
		if err := takeAfter(unix.AT_FDCWD, tree, unix.AT_FDCWD, below[0]); err != nil {
			return err
		}
	}
	if opaque(unix.AT_FDCWD, tree) {
		below = nil
	}
	m, err := openMerged(append([]string{tree}, below...))
	if err != nil {
		return err
	}
	defer m.close()
	// The whiteouts first, as their removal changes times.
	for _, name := range stats.Hiding {
		if err := dropUseless(m, name); err != nil {
			return err
		}
	}
	for _, name := range stats.Implicit {
		if err := takeAfterBelow(m, name); err != nil {
			return err
		}
	}
	return nil
}

// takeAfterBelow gives a directory the attributes of the one below it, if any.
// It may be opaque: that hides what is in the other, not the directory.
func takeAfterBelow(m *merged, name string) error {
	above, err := m.directory(path.Dir(name))
	if err != nil {
		return &fs.PathError{Op: "find", Path: name, Err: err}
	}
	base := path.Base(name)
	defer m.closeFrom(len(m.fds))
	below, _, err := m.lookup(above[1:], base)
	if errors.Is(err, fs.ErrNotExist) || err == nil && below == nil {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "find", Path: name, Err: err}
	}
	return takeAfter(above[0], base, below[0], ".")
}

// dropUseless removes the whiteouts from a directory of which there is nothing
// below: overlayfs lists them as if they were files.
func dropUseless(m *merged, name string) error {
	dirs, err := m.directory(name)
	if err != nil {
		return &fs.PathError{Op: "find", Path: name, Err: err}
	}
	if len(dirs) > 1 {
		return nil
	}
	d, err := openDir(dirs[0], ".")
	if err != nil {
		return err
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var at unix.Stat_t
		if e.Type()&fs.ModeCharDevice == 0 {
			continue
		}
		if err := unix.Fstatat(int(d.Fd()), e.Name(), &at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if !overlayfs.IsWhiteout(&at) {
			continue
		}
		if err := unix.Unlinkat(int(d.Fd()), e.Name(), 0); err != nil {
			return err
		}
	}
	return setTimes(int(d.Fd()), ".", st.Atim, st.Mtim)
}

// takeAfter gives one directory the attributes of another.
func takeAfter(toDir int, to string, fromDir int, from string) error {
	dst, err := openDir(toDir, to)
	if err != nil {
		return err
	}
	defer dst.Close()
	src, err := openDir(fromDir, from)
	if err != nil {
		return err
	}
	defer src.Close()
	return archive.CopyAttributes(dst, src)
}

// openDir opens a directory for reading, not by a link.
func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// writable takes a pair of directories that was made beforehand.
func (o *overlay) writable(top *layer) (string, error) {
	pair := o.spares.take()
	if pair == "" {
		var err error
		if pair, err = o.store.makePair(); err != nil {
			return "", err
		}
	}
	// The root of the mount shows the owner and mode of the upper directory.
	upper := pair + "/upper"
	if top.uid != 0 || top.gid != 0 {
		if err := unix.Lchown(upper, top.uid, top.gid); err != nil {
			return "", &fs.PathError{Op: "chown", Path: upper, Err: err}
		}
	}
	if err := unix.Chmod(upper, top.mode); err != nil {
		return "", &fs.PathError{Op: "chmod", Path: upper, Err: err}
	}
	return pair, nil
}

func (o *overlay) mount(dir string, below []string) Mount {
	if dir != "" {
		return Mount{Lower: append(below, o.store.base.path), Upper: dir + "/upper", Work: dir + "/work"}
	}
	if len(below) < 2 { // the kernel wants two
		below = append(below, o.store.path("empty"))
	}
	if len(below) < 2 {
		return Mount{Dir: below[0], ReadOnly: true}
	}
	return Mount{Lower: below, ReadOnly: true}
}

func (o *overlay) remove(dir string) error {
	return errors.Join(unlimit(dir), deltree.Remove(dir))
}

// overlayWorks tries whether the store at root can hold what overlay mounts need: whiteouts,
// attributes, and a file system that the kernel takes.
func overlayWorks(root string) (err error) {
	dir := filepath.Join(root, "new")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "overlay")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, name := range []string{"lower", "middle", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(tmp, name), 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{"lower", "middle"} {
		if err := os.WriteFile(filepath.Join(tmp, name, "file"), nil, 0o600); err != nil {
			return err
		}
	}
	hidden := filepath.Join(tmp, "middle/hidden")
	if err := unix.Mknod(hidden, unix.S_IFCHR, 0); err != nil {
		return &fs.PathError{Op: "mknod", Path: hidden, Err: err}
	}
	if err := unix.Setxattr(filepath.Join(tmp, "middle"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return os.NewSyscallError("setxattr", err)
	}
	fd, err := overlayfs.Mount(overlayfs.Overlay{
		Lower: []string{filepath.Join(tmp, "middle"), filepath.Join(tmp, "lower")}, Upper: filepath.Join(tmp, "upper"), Work: filepath.Join(tmp, "work"),
	}, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.NewSyscallError("unlink", unix.Unlinkat(fd, "file", 0))
}
