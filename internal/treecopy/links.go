package treecopy

import (
	"errors"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/openat"
)

// links are the files that have several names, as they are found.
type links struct {
	mu sync.Mutex
	of map[inode]*linked
}

type inode struct{ dev, ino uint64 }

// linked is the copy of such a file.
type linked struct {
	made chan struct{} // closed when it is there, or failed
	path string        // of its first name, from the root
	left uint64        // names that may yet come
	err  error
}

// claim finds the file, or notes that the caller is the first to come by it.
func (l *links) claim(st *unix.Stat_t, name string) (file *linked, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := inode{uint64(st.Dev), st.Ino}
	if file = l.of[key]; file == nil {
		file = &linked{made: make(chan struct{}), path: name, left: uint64(st.Nlink) - 1}
		l.of[key] = file
		return file, true
	}
	if file.left--; file.left == 0 {
		delete(l.of, key)
	}
	return file, false
}

// forget lets the next name be the first.
func (l *links) forget(st *unix.Stat_t, file *linked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key := (inode{uint64(st.Dev), st.Ino}); l.of[key] == file {
		delete(l.of, key)
	}
}

// linked copies one name of a file that has several. The first waits for nobody,
// so none waits without end.
func (c *copier) linked(w *worker, d *directory, place int, name string, st *unix.Stat_t) error {
	for {
		file, first := c.links.claim(st, d.path+name)
		if first {
			if file.err = c.single(w, d.to, place, name, st); file.err != nil {
				c.links.forget(st, file)
			}
			close(file.made)
			return file.err
		}
		<-file.made
		switch {
		case file.err == nil:
			return c.link(file.path, d.to, name)
		case !errors.Is(file.err, unix.EEXIST): // that name was read twice, and this one is another
			return file.err
		}
	}
}

// link gives a file of the copy a further name.
func (c *copier) link(from string, to int, name string) error {
	dir, err := openat.Open(c.root, path.Dir(from), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(dir, path.Base(from), to, name, 0)
}
