// Package treecopy copies trees of files as they are: names, hard links, owners,
// modes, extended attributes with access lists and capabilities, devices, holes,
// times. It goes by descriptors: nothing is followed, and nothing but directories
// and regular files is opened. What it reads may be hostile as long as nobody
// changes it meanwhile.
//
// Nothing is synced. Blocks are shared where the file system can, and else copied
// by as many threads as there are processors, each file in the order in which its
// directory lists it.
package treecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Copy fills the empty directory to with what the directory from holds, and gives
// it the attributes of that one. Nobody else may write to it. After an error, or
// when ctx ends, a part of it is there.
func Copy(ctx context.Context, to, from *os.File) error {
	c := &tree{ctx: ctx, to: int(to.Fd()), links: map[inode]*link{}, mask: umask()}
	c.more.L = &c.mu
	if err := plain(c.to); err != nil {
		return err
	}
	dst, err := open(c.to, ".")
	if err != nil {
		return err
	}
	src, err := open(int(from.Fd()), ".")
	if err != nil {
		dst.Close()
		return err
	}
	top := &directory{to: dst, from: src}
	top.left.Store(1) // itself, until it has been read
	c.push(job{dir: top, scan: true})
	var working sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), maxWorkers) {
		working.Go(func() { (&worker{tree: c}).run() })
	}
	working.Wait()
	c.drop() // not before: the descriptors' numbers may be in use
	runtime.KeepAlive(to)
	return c.err
}

// plain sees to it that what is made in a directory has this process's owner, and
// the mode that it is made with: no set-group-ID bit, no default access list.
func plain(dir int) error {
	if err := unix.Fchmod(dir, 0o700); err != nil {
		return err
	}
	err := unix.Fremovexattr(dir, "system.posix_acl_default")
	if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// maxWorkers bounds the threads: more of them wait for the same journal.
const maxWorkers = 8

// batch is how many entries of a directory are one piece of work.
const batch = 64

// tree is one copy. Its work is a stack, so that few directories are open at a
// time: what is found last is done first.
type tree struct {
	ctx  context.Context
	to   int
	mask uint32

	// What the file systems cannot do is not tried again.
	noClone, noRange, noXattrs atomic.Bool

	mu    sync.Mutex
	more  sync.Cond // of stack, busy and err
	stack []job
	busy  int // workers that may find more
	err   error

	linking sync.Mutex
	links   map[inode]*link // files of several names
}

type inode struct{ dev, ino uint64 }

// link is the first copy of a file of several names.
type link struct {
	path string        // from the root of the copy
	made chan struct{} // closed when it is there, or never will be
}

// directory is one that is being copied. It is open until all in it is done.
type directory struct {
	up       *directory
	name     string
	path     string // from the root, with a slash at the end; "" for the root
	to, from *os.File
	st       unix.Stat_t
	left     atomic.Int64 // pieces of work
}

// job is a piece of work: entries of a directory to copy, or one of it to read.
type job struct {
	dir     *directory
	scan    bool
	name    string // of a directory in dir that is not open yet; "" for dir itself
	entries []fs.DirEntry
}

func (c *tree) push(jobs ...job) {
	c.mu.Lock()
	c.stack = append(c.stack, jobs...)
	c.mu.Unlock()
	c.more.Broadcast()
}

// next waits for work; done with it is told by the next call.
func (c *tree) next(first bool) (job, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !first {
		c.busy--
	}
	for len(c.stack) == 0 && c.busy > 0 && c.err == nil {
		c.more.Wait()
	}
	if len(c.stack) == 0 || c.err != nil {
		c.more.Broadcast()
		return job{}, false
	}
	j := c.stack[len(c.stack)-1]
	c.stack = c.stack[:len(c.stack)-1]
	c.busy++
	return j, true
}

func (c *tree) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.more.Broadcast()
}

// worker is one thread with its buffers.
type worker struct {
	*tree
	data, names, value []byte
}

func (w *worker) run() {
	for first := true; ; first = false {
		j, ok := w.next(first)
		if !ok {
			break
		}
		if err := w.do(j); err != nil {
			w.fail(err)
		}
	}
}

// drop closes what is still open after an error. The stack leads to all of it, as
// do the directories that were being worked on, whose files the collector closes.
func (c *tree) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.stack {
		for d := j.dir; d != nil; d = d.up {
			d.to.Close()
			d.from.Close()
		}
	}
	c.stack = nil
}

func (w *worker) do(j job) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	d := j.dir
	switch {
	case j.name != "":
		sub, err := w.enter(d, j.name)
		if err != nil {
			return err
		}
		d = sub
		fallthrough
	case j.scan:
		if err := w.read(d); err != nil {
			return err
		}
	default:
		for _, e := range j.entries {
			if err := w.entry(d, e); err != nil {
				return &fs.PathError{Op: "copy", Path: d.path + e.Name(), Err: err}
			}
		}
	}
	return w.leave(d)
}

// enter makes a subdirectory and opens both.
func (w *worker) enter(up *directory, name string) (*directory, error) {
	d := &directory{up: up, name: name, path: up.path + name + "/"}
	if len(d.path) >= unix.PathMax {
		return nil, fmt.Errorf("a path of more than %d bytes cannot be copied: %q…", unix.PathMax, d.path[:80])
	}
	var err error
	if err = unix.Mkdirat(int(up.to.Fd()), name, 0o700); err != nil {
		return nil, &fs.PathError{Op: "mkdir", Path: d.path, Err: err}
	}
	if d.to, err = open(int(up.to.Fd()), name); err != nil {
		return nil, err
	}
	if d.from, err = open(int(up.from.Fd()), name); err != nil {
		d.to.Close()
		return nil, err
	}
	d.left.Store(1)
	return d, nil
}

// read puts all that is in a directory on the stack.
func (w *worker) read(d *directory) error {
	if err := unix.Fstat(int(d.from.Fd()), &d.st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	var jobs []job
	for {
		entries, err := d.from.ReadDir(1024)
		for part := range slices.Chunk(entries, batch) {
			j := job{dir: d}
			for _, e := range part {
				if e.IsDir() {
					jobs = append(jobs, job{dir: d, name: e.Name()})
				} else {
					j.entries = append(j.entries, e)
				}
			}
			if len(j.entries) > 0 {
				jobs = append(jobs, j)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	d.left.Add(int64(len(jobs)))
	slices.Reverse(jobs) // the first is taken first
	w.push(jobs...)
	return nil
}

// leave counts a piece of work of a directory as done, and finishes each that
// has no more: its attributes come last, a default access list would go to what is
// made in it and its times would change.
func (w *worker) leave(d *directory) error {
	for ; d != nil && d.left.Add(-1) == 0; d = d.up {
		err := w.attributes(int(d.to.Fd()), int(d.from.Fd()), &d.st, 0)
		d.to.Close()
		d.from.Close()
		if err != nil {
			return &fs.PathError{Op: "copy", Path: "/" + d.path, Err: err}
		}
	}
	return nil
}

func open(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
