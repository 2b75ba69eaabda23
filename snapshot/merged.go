package snapshot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
)

// maxLinks is how many symbolic links one look-up follows, path_resolution(7).
const maxLinks = 40

// ReadFile reads one regular file of the tree that the layers make when they
// are stacked, topmost first, without mounting it: whiteouts and opaque
// directories hide what is below them, and links, absolute ones too, stay
// inside. At most max bytes are read. A file that is not there, or is none, is
// fs.ErrNotExist. The tree may be hostile, and changing.
func ReadFile(layers []string, name string, max int64) ([]byte, error) {
	m, err := openMerged(layers)
	if err != nil {
		return nil, err
	}
	defer m.close()
	fd, err := m.walk(name)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, max))
}

// merged is a look into stacked layers. A directory in it is the list of the
// layers' directories that make it up, topmost first.
type merged struct {
	root []int
	fds  []int // all that are open, by O_PATH
	last []step
}

// step is one name on the way to the directory that was looked for last.
type step struct {
	name string
	dirs []int
	fds  int // how many were open before
}

func openMerged(layers []string) (*merged, error) {
	m := &merged{}
	for _, dir := range layers {
		fd, err := m.open(unix.AT_FDCWD, dir, unix.O_DIRECTORY)
		if err != nil {
			m.close()
			return nil, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		m.root = append(m.root, fd)
	}
	return m, nil
}

// directory finds a directory by a path without links. What it returns is valid
// until the next call, which is quick for a name nearby.
func (m *merged) directory(name string) ([]int, error) {
	names := strings.Split(name, "/")
	if name == "." {
		names = nil
	}
	known := 0
	for known < len(m.last) && known < len(names) && m.last[known].name == names[known] {
		known++
	}
	if known < len(m.last) {
		m.closeFrom(m.last[known].fds)
		m.last = m.last[:known]
	}
	dirs := m.root
	if known > 0 {
		dirs = m.last[known-1].dirs
	}
	for _, name := range names[known:] {
		next := step{name: name, fds: len(m.fds)}
		var err error
		if next.dirs, _, err = m.lookup(dirs, name); err == nil && next.dirs == nil {
			err = unix.ENOTDIR
		}
		if err != nil {
			m.closeFrom(next.fds)
			return nil, err
		}
		m.last = append(m.last, next)
		dirs = next.dirs
	}
	return dirs, nil
}

// maxOpen is how many directories are open at a time. An image can have hundreds
// of layers with directories a thousand levels deep.
const maxOpen = 8192

func (m *merged) open(at int, name string, flags int) (int, error) {
	if len(m.fds) == maxOpen {
		return -1, fault.New(fault.Invalid, "%q lies too deep in too many layers", name)
	}
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err == nil {
		m.fds = append(m.fds, fd)
	}
	return fd, err
}

func (m *merged) close() { m.closeFrom(0) }

// closeFrom closes all but the first n that were opened.
func (m *merged) closeFrom(n int) {
	for _, fd := range m.fds[n:] {
		unix.Close(fd)
	}
	m.fds = m.fds[:n]
}

// walk follows name from the root and opens the regular file it leads to.
func (m *merged) walk(name string) (int, error) {
	stack := [][]int{m.root}
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		step := todo[0]
		todo = todo[1:]
		switch step {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		dirs, at, err := m.lookup(stack[len(stack)-1], step)
		if err != nil {
			return -1, err
		}
		if dirs != nil {
			stack = append(stack, dirs)
			continue
		}
		target, err := readlink(at, step)
		if errors.Is(err, unix.EINVAL) { // no link
			if len(todo) > 0 {
				return -1, fs.ErrNotExist
			}
			return m.openRegular(at, step)
		}
		if links++; err != nil || links > maxLinks {
			return -1, errors.Join(err, fs.ErrNotExist)
		}
		if strings.HasPrefix(target, "/") {
			stack = stack[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return -1, fs.ErrNotExist // a directory
}

// lookup finds a name in a stacked directory: the directories that it is made
// of, or for anything else the directory of the layer that holds it.
func (m *merged) lookup(stacked []int, name string) (dirs []int, at int, err error) {
	for _, dir := range stacked {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
			continue
		} else if err != nil {
			return nil, -1, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fd, err := m.open(dir, name, unix.O_DIRECTORY)
			if err != nil {
				return nil, -1, err
			}
			dirs = append(dirs, fd)
			if opaque(dir, name) {
				break
			}
			continue
		}
		if dirs == nil && !overlayfs.IsWhiteout(&st) {
			return nil, dir, nil
		}
		break
	}
	if dirs == nil {
		return nil, -1, fs.ErrNotExist
	}
	return dirs, -1, nil
}

// opaque tells whether an overlay directory hides those below it.
func opaque(dir int, name string) bool {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return overlayfs.IsOpaque(fd)
}

func readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// openRegular opens a file for reading, once it is known to be one: to open a
// device is to act on it, a watchdog or a tape already by that.
func (m *merged) openRegular(dir int, name string) (int, error) {
	at, err := m.open(dir, name, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errors.Join(err, fs.ErrNotExist)
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}
