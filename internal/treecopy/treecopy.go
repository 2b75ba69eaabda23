// Package treecopy copies trees of files as they are: names, hard links, owners,
// modes, extended attributes with access lists and capabilities, times, holes,
// devices, pipes and sockets. Where the file system can, copies share their data
// until it is written to (FICLONE), and a subvolume of btrfs is copied whole by a
// snapshot; elsewhere the kernel copies (copy_file_range), or read and write do.
//
// The tree that is copied may be hostile and may change meanwhile: all is done
// relative to descriptors, no symbolic link is followed, nothing is opened before
// it is known to be a regular file or a directory, and what vanishes is passed
// over. The tree that is made must be nobody else's until it is whole: make it
// under a name that nobody uses, and rename it.
package treecopy

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/btrfs"
	"github.com/tarehq/tare/internal/deltree"
)

// ErrTooDeep is of a tree with paths that are longer than any that can be named
// as a whole (PATH_MAX). Each level of a tree takes two descriptors.
var ErrTooDeep = errors.New("a path is longer than 4095 bytes")

// atOnce is how many names of a directory go to one worker.
const atOnce = 128

// Clone makes name in the directory at, where nothing has that name, a copy of the
// tree from: a subvolume on btrfs, else a directory. After an error there is
// nothing of it. It is not synced: see Sync. prepare, unless nil, is called with the
// new tree, before what is copied comes into it.
func Clone(ctx context.Context, at *os.File, name string, from *os.File, prepare func(tree *os.File) error) error {
	dir := int(at.Fd())
	if source := int(from.Fd()); btrfs.IsSubvolume(source) && !btrfs.HasNested(source) {
		err := btrfs.Snapshot(dir, name, source)
		if err == nil {
			var to *os.File
			if to, err = openTree(at, name); err == nil {
				return finish(at, name, to, prepare, func() error { return nil })
			}
		}
		if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.ENOTTY) {
			return err // the others: at is of another file system
		}
	}
	to, err := Make(at, name)
	if err != nil {
		return err
	}
	return finish(at, name, to, prepare, func() error { return Copy(ctx, to, from) })
}

// finish completes a tree, or removes it.
func finish(at *os.File, name string, tree *os.File, prepare func(*os.File) error, fill func() error) (err error) {
	if prepare != nil {
		err = prepare(tree)
	}
	if err == nil {
		err = fill()
	}
	tree.Close()
	if err != nil {
		err = errors.Join(err, Remove(at, name))
	}
	return err
}

// Make makes an empty tree for Clone to copy or to be copied to, and opens it.
func Make(at *os.File, name string) (*os.File, error) {
	dir := int(at.Fd())
	var err error
	if btrfs.Is(dir) {
		err = btrfs.Create(dir, name)
	} else {
		err = pathError("mkdir", name, unix.Mkdirat(dir, name, 0o700))
	}
	if err != nil {
		return nil, err
	}
	return openTree(at, name)
}

// openTree opens what was just made, or removes it.
func openTree(at *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(at.Fd()), name, dirFlags, 0)
	if err != nil {
		return nil, errors.Join(pathError("open", name, err), Remove(at, name))
	}
	return os.NewFile(uintptr(fd), filepath.Join(at.Name(), name)), nil
}

// Remove removes a tree, and with it the subvolumes in it. It is no error when
// there is none.
func Remove(at *os.File, name string) error {
	dir := int(at.Fd())
	if btrfs.Is(dir) {
		if err := btrfs.Remove(dir, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := deltree.At(dir, name); err != nil && !errors.Is(err, unix.ENOENT) {
		return pathError("remove", name, err)
	}
	return nil
}

// Sync returns when all that was written to the file system of dir survives power
// loss.
func Sync(dir *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(dir.Fd()))) }

// Copy fills the open directory to, which is empty, with what from holds, and
// makes its owner, mode, extended attributes and times those of from. What was
// written before an error stays; the caller removes the tree.
func Copy(ctx context.Context, to, from *os.File) error {
	return copyBy(ctx, to, from, max(runtime.GOMAXPROCS(0), 2), &ways{})
}

func copyBy(ctx context.Context, to, from *os.File, workers int, w *ways) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &copier{ways: w, cancel: cancel, links: links{of: map[inode]*linked{}}, idle: make(chan *worker, workers)}
	for range workers - 1 {
		c.idle <- &worker{}
	}
	// Descriptors of their own: these have a position, and are closed at the end.
	dst, err := reopen(to)
	if err != nil {
		return err
	}
	c.root = dst
	src, err := reopen(from)
	if err == nil {
		err = inheritNothing(dst)
	}
	if err != nil {
		unix.Close(dst)
		return err
	}
	c.directory(ctx, &worker{}, nil, dst, src, "")
	c.running.Wait()
	return context.Cause(ctx)
}

func reopen(dir *os.File) (int, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", dirFlags&^unix.O_NOFOLLOW, 0)
	return fd, pathError("open", dir.Name(), err)
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// copier copies one tree by several workers.
type copier struct {
	*ways
	root    int // of the copy
	links   links
	idle    chan *worker // that have nothing to do
	running sync.WaitGroup
	cancel  context.CancelCauseFunc
}

// worker has the buffers of one of those who copy at the same time.
type worker struct{ data, names, value []byte }

// hand has a worker with nothing to do carry out the work, if there is one.
func (c *copier) hand(work func(*worker)) bool {
	select {
	case w := <-c.idle:
		c.running.Go(func() {
			work(w)
			c.idle <- w
		})
		return true
	default:
		return false
	}
}

// directory is one that is being copied. It gets its attributes from whoever
// ends the last part of the work on it: what is made in it changes its times, and
// inherits from it.
type directory struct {
	up    *directory
	to    int
	from  *os.File
	path  string // from the root: "", or with a slash at its end
	parts atomic.Int32
}

// directory copies into to what is in from, and closes both when all of it is done.
func (c *copier) directory(ctx context.Context, w *worker, up *directory, to, from int, path string) {
	d := &directory{up: up, to: to, from: os.NewFile(uintptr(from), path), path: path}
	if up != nil {
		up.parts.Add(1)
	}
	d.parts.Store(1)
	for ctx.Err() == nil {
		names, err := d.from.Readdirnames(atOnce)
		if len(names) > 0 {
			c.share(ctx, w, d, names)
		}
		if err == io.EOF || errors.Is(err, unix.ENOENT) { // ENOENT: it is removed
			break
		}
		if err != nil {
			c.cancel(err)
		}
	}
	c.end(ctx, w, d)
}

// share copies the named entries, or has it done.
func (c *copier) share(ctx context.Context, w *worker, d *directory, names []string) {
	const worthIt = 8
	d.parts.Add(1)
	if len(names) >= worthIt && c.hand(func(w *worker) { c.entries(ctx, w, d, names) }) {
		return
	}
	c.entries(ctx, w, d, names)
}

func (c *copier) entries(ctx context.Context, w *worker, d *directory, names []string) {
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		// EEXIST: a directory that changes can show a name twice.
		if err := c.entry(ctx, w, d, name); err != nil && !errors.Is(err, unix.EEXIST) {
			c.cancel(pathError("copy", d.path+name, err))
		}
	}
	c.end(ctx, w, d)
}

// end is the end of one part of the work on a directory.
func (c *copier) end(ctx context.Context, w *worker, d *directory) {
	for ; d != nil && d.parts.Add(-1) == 0; d = d.up {
		if ctx.Err() == nil {
			if err := c.finish(w, d); err != nil {
				c.cancel(pathError("copy", d.path, err))
			}
		}
		d.from.Close()
		unix.Close(d.to)
	}
}

func (c *copier) finish(w *worker, d *directory) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.from.Fd()), &st); err != nil {
		return err
	}
	return w.dress(d.to, int(d.from.Fd()), &st)
}

// entry copies one thing with all that is below it.
func (c *copier) entry(ctx context.Context, w *worker, d *directory, name string) error {
	if len(d.path)+len(name) >= unix.PathMax {
		return ErrTooDeep
	}
	// As a mere place: to open a device is to act on it, and to open a pipe is to wait.
	place, err := unix.Openat(int(d.from.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(place, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		src, err := unix.Openat(place, ".", dirFlags, 0)
		unix.Close(place) // not one more for each level
		if err != nil {
			return err
		}
		return c.subdirectory(ctx, w, d, src, name)
	case st.Nlink > 1:
		err = c.linked(w, d, place, name, &st)
	default:
		err = c.single(w, d.to, place, name, &st)
	}
	unix.Close(place)
	return err
}

// subdirectory copies the open directory src, by another worker if one has
// nothing to do.
func (c *copier) subdirectory(ctx context.Context, w *worker, d *directory, src int, name string) error {
	err := unix.Mkdirat(d.to, name, 0o700)
	dst := -1
	if err == nil {
		dst, err = unix.Openat(d.to, name, dirFlags, 0)
	}
	if err != nil {
		unix.Close(src)
		return err
	}
	path := d.path + name + "/"
	d.parts.Add(1) // until the other has counted itself
	if !c.hand(func(w *worker) { c.directory(ctx, w, d, dst, src, path); c.end(ctx, w, d) }) {
		c.directory(ctx, w, d, dst, src, path)
		d.parts.Add(-1) // those who brought us here count too
	}
	return nil
}

// single copies what is no directory.
func (c *copier) single(w *worker, to, place int, name string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.regular(w, to, place, name, st)
	case unix.S_IFLNK:
		target, err := w.readlink(place)
		if err == nil {
			err = unix.Symlinkat(target, to, name)
		}
		if err != nil {
			return err
		}
	default: // a device, a pipe, a socket
		if err := unix.Mknodat(to, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)); err != nil {
			return err
		}
	}
	return w.dressAt(to, name, place, st)
}

// pathError keeps the innermost path.
func pathError(op, path string, err error) error {
	var have *fs.PathError
	if err == nil || errors.As(err, &have) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
