package archive

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
)

// Tree is a tree of files for reading: one directory, or directories that are
// stacked as overlayfs stacks its layers, topmost first, with its whiteouts
// and opaque directories. None at all are an empty tree. It is read beside a
// container that changes it: what vanishes meanwhile is passed over.
type Tree []*os.File

// maxNames is how many names of a directory are in memory at a time; of a
// larger one they are read in several passes. A variable for the tests.
var maxNames = 100_000

// maxOpen is how many directories one reader has open at a time: each level of
// depth in each layer takes one. An image can have hundreds of layers with
// directories a thousand levels deep, and the daemon would have no descriptors
// left for others. A variable for the tests.
var maxOpen = 8192

// openDirs counts a reader's open directories.
type openDirs struct{ n int }

// take counts those of the name, for the caller to give back.
func (o *openDirs) take(name string, dirs int) error {
	if o.n += dirs; o.n > maxOpen {
		return fault.New(fault.Invalid, "%q lies too deep in too many layers to be looked at: make one layer of them", "/"+shorten(name))
	}
	return nil
}

func (o *openDirs) give(dirs int) { o.n -= dirs }

// stack is one directory of a tree: its directory in each layer that has one,
// topmost first. The descriptors are its own.
type stack []int

// open opens the root. Own descriptors, as each has a position of its own.
func (t Tree) open() (stack, error) {
	s := make(stack, 0, len(t))
	for _, dir := range t {
		fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			s.close()
			return nil, &os.PathError{Op: "open", Path: dir.Name(), Err: err}
		}
		s = append(s, fd)
		if overlayfs.IsOpaque(fd) {
			break
		}
	}
	return s, nil
}

func (s stack) close() {
	for _, fd := range s {
		unix.Close(fd)
	}
}

// item is a name in a stacked directory, and the first of its layers that has it.
type item struct {
	name  string
	layer int
	kind  byte // DT_REG and the like, 0 when that is not known
}

// file tells whether it is known to be no directory.
func (i *item) file() bool { return i.kind != unix.DT_UNKNOWN && i.kind != unix.DT_DIR }

// find looks up a name; nil when there is none.
func (s stack) find(name string) (*item, error) {
	for i, fd := range s {
		var st unix.Stat_t
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if overlayfs.IsWhiteout(&st) {
			return nil, nil
		}
		return &item{name: name, layer: i}, nil
	}
	return nil, nil
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// stat looks at an item. ok is false when it is gone or hidden.
func (s stack) stat(it item) (st unix.Stat_t, ok bool, err error) {
	err = unix.Fstatat(s[it.layer], it.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return st, false, nil
	}
	return st, err == nil && !overlayfs.IsWhiteout(&st), err
}

// enter opens the directory of an item, with those below it that it merges
// with. nil when it is gone or no directory any more.
func (s stack) enter(it item) (stack, error) {
	var sub stack
	for _, fd := range s[it.layer:] {
		dir, err := unix.Openat(fd, it.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.ENOENT) && len(sub) > 0:
			continue
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP): // a file here hides what is below
			return sub, nil
		case err != nil:
			sub.close()
			return nil, err
		}
		sub = append(sub, dir)
		if overlayfs.IsOpaque(dir) {
			break
		}
	}
	return sub, nil
}

// cursor goes through the names of a stacked directory in their order,
// whiteouts included.
type cursor struct {
	stack stack
	items []item
	more  bool
	begun bool
	last  string
}

// peek gives the present name; nil at the end.
func (c *cursor) peek() (*item, error) {
	if len(c.items) == 0 && (!c.begun || c.more) {
		var err error
		c.items, c.more, err = c.stack.list(c.last, !c.begun)
		c.begun = true
		if err != nil {
			return nil, err
		}
	}
	if len(c.items) == 0 {
		return nil, nil
	}
	return &c.items[0], nil
}

func (c *cursor) next() {
	c.last = c.items[0].name
	c.items = c.items[1:]
}

// list gives the smallest names that come after the last one, each with the
// topmost layer that has it, and tells whether there are more than fit.
func (s stack) list(last string, first bool) (items []item, more bool, err error) {
	shrink := func() {
		slices.SortFunc(items, func(a, b item) int { return cmp.Or(cmp.Compare(a.name, b.name), a.layer-b.layer) })
		items = slices.CompactFunc(items, func(a, b item) bool { return a.name == b.name })
		if len(items) > maxNames {
			clear(items[maxNames:])
			items, more = items[:maxNames], true
		}
	}
	buf := make([]byte, 32<<10)
	for layer, fd := range s {
		if _, err := unix.Seek(fd, 0, 0); err != nil {
			return nil, false, err
		}
		for {
			n, err := unix.ReadDirent(fd, buf)
			if errors.Is(err, unix.ENOENT) { // the directory was removed
				break
			}
			if err != nil {
				return nil, false, err
			}
			if n <= 0 {
				break
			}
			for name, kind := range dirents(buf[:n]) {
				if first || name > last {
					items = append(items, item{name, layer, kind})
				}
			}
			if len(items) > 2*maxNames {
				shrink()
			}
		}
	}
	shrink()
	return items, more, nil
}

// dirents reads what getdents64(2) wrote: names and kinds.
func dirents(buf []byte) iter.Seq2[string, byte] {
	const inode, length, kind, name = 0, 16, 18, 19 // offsets in struct linux_dirent64
	return func(yield func(string, byte) bool) {
		for len(buf) > name {
			size := int(binary.NativeEndian.Uint16(buf[length:]))
			if size <= name || size > len(buf) {
				return
			}
			text, _, _ := bytes.Cut(buf[name:size], []byte{0})
			k := buf[kind]
			gone := binary.NativeEndian.Uint64(buf[inode:]) == 0
			buf = buf[size:]
			if s := string(text); !gone && s != "." && s != ".." && !yield(s, k) {
				return
			}
		}
	}
}

// Real gives the path that a name, from the root and without a slash in front,
// has when the links on the way are followed, the last component's too. What is
// not there is taken as it is.
func (t Tree) Real(name string) (string, error) {
	root, err := t.open()
	if err != nil {
		return "", err
	}
	way := []stack{root} // the directories that lead there
	defer func() {
		for _, s := range way {
			s.close()
		}
	}()
	var names []string // of way, but for the root
	up := func(to int) {
		for _, s := range way[to+1:] {
			s.close()
		}
		way, names = way[:to+1], names[:to]
	}
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		step := todo[0]
		todo = todo[1:]
		if step == "" || step == "." {
			continue
		}
		if step == ".." {
			up(max(len(names)-1, 0))
			continue
		}
		dir := way[len(way)-1]
		it, err := dir.find(step)
		if err != nil || it == nil || links > maxLinks {
			return path.Join(append(append(names, step), todo...)...), err
		}
		if target, err := readlink(dir[it.layer], step); err == nil {
			if links++; path.IsAbs(target) {
				up(0)
			}
			todo = append(strings.Split(target, "/"), todo...)
			continue
		}
		sub, err := dir.enter(*it)
		if err != nil || len(sub) == 0 {
			return path.Join(append(append(names, step), todo...)...), err
		}
		way, names = append(way, sub), append(names, step)
	}
	return path.Join(names...), nil
}
