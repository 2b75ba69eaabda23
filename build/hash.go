package build

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// hasher hashes trees, which nobody changes. With sums their files are ours, and known
// ones are not read.
type hasher struct {
	hash.Hash
	sums *sums
	line []byte
	list []byte // of attributes
}

// spot is a name in a directory that is open, or what is open itself.
type spot struct {
	fd   int
	name string // "" for what is open
}

// path leads to it.
func (s spot) path() string {
	p := "/proc/self/fd/" + strconv.Itoa(s.fd)
	if s.name != "" {
		p += "/" + s.name
	}
	return p
}

// hashTree hashes a file, or a directory with what is in it.
func hashTree(ctx context.Context, h *hasher, t *tree, name string, follow bool) error {
	f, err := t.openPath(name, follow)
	if err != nil {
		return err
	}
	defer f.Close()
	return h.entry(ctx, spot{int(f.Fd()), ""}, path.Base(name))
}

func (h *hasher) entry(ctx context.Context, at spot, shown string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var x unix.Statx_t
	if err := unix.Statx(at.fd, at.name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x); err != nil {
		return &fs.PathError{Op: "stat", Path: shown, Err: err}
	}
	line := strconv.AppendQuote(h.line[:0], shown)
	line = strconv.AppendUint(append(line, ' '), uint64(x.Mode), 8)
	line = strconv.AppendUint(append(line, ' '), uint64(x.Uid), 10)
	line = strconv.AppendUint(append(line, ':'), uint64(x.Gid), 10)
	known, id := sum{}, identity{}
	if regular := x.Mode&unix.S_IFMT == unix.S_IFREG; regular && h.sums != nil {
		id = identify(&x)
		known, _ = h.sums.find(id)
	}
	bare := known.bare
	if !bare {
		var err error
		if line, bare, err = h.attributes(line, at); err != nil {
			return err
		}
	}
	switch x.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		line = append(strconv.AppendUint(append(line, " file "...), x.Size, 10), '\n')
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(at.fd, at.name, buf)
		if err != nil {
			return &fs.PathError{Op: "readlink", Path: shown, Err: err}
		}
		line = append(strconv.AppendQuote(append(line, " link "...), string(buf[:n])), '\n')
	case unix.S_IFDIR:
		line = append(line, " directory\n"...)
	default:
		line = append(strconv.AppendUint(append(line, " device "...), unix.Mkdev(x.Rdev_major, x.Rdev_minor), 10), '\n')
	}
	h.Write(line)
	h.line = line
	switch x.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if known == (sum{}) {
			content, err := h.file(at, shown, &x)
			if err != nil {
				return err
			}
			if known = (sum{content, bare}); h.sums != nil {
				h.sums.add(id, known)
			}
		}
		h.Write(known.content[:])
	case unix.S_IFDIR:
		return h.directory(ctx, at, shown)
	}
	return nil
}

// attributes adds the attributes that are content: capabilities and the user's. Others
// are the host's own. It tells whether there is none at all.
func (h *hasher) attributes(line []byte, at spot) (longer []byte, none bool, err error) {
	if h.list == nil {
		h.list = make([]byte, 64<<10)
	}
	list := unix.Llistxattr
	if at.name == "" {
		list = unix.Listxattr // through the link that stands for what is open
	}
	n, err := list(at.path(), h.list)
	if err != nil || n == 0 {
		return line, n == 0 || err == unix.ENOTSUP, nil // the file system has none
	}
	names := strings.Split(strings.TrimRight(string(h.list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	value := make([]byte, 64<<10)
	for _, name := range names {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		get := unix.Lgetxattr
		if at.name == "" {
			get = unix.Getxattr
		}
		n, err := get(at.path(), name, value)
		if err != nil {
			return nil, false, &fs.PathError{Op: "getxattr", Path: at.name, Err: err}
		}
		line = strconv.AppendQuote(append(line, ' '), name)
		line = append(line, ' ')
		for _, b := range value[:n] {
			const digits = "0123456789abcdef"
			line = append(line, digits[b>>4], digits[b&15])
		}
	}
	return line, false, nil
}

// file hashes what a regular file holds.
func (h *hasher) file(at spot, shown string, x *unix.Statx_t) (content [sha256.Size]byte, err error) {
	fd, err := at.open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		return content, &fs.PathError{Op: "open", Path: shown, Err: err}
	}
	r := os.NewFile(uintptr(fd), shown)
	defer r.Close()
	var is unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &is); err != nil || is.Ino != x.Ino || is.Mode != x.Mode {
		return content, fault.New(fault.Conflict, "the file %q has changed while it was read", shown)
	}
	own := sha256.New()
	if _, err := io.CopyBuffer(own, struct{ io.Reader }{r}, make([]byte, min(max(x.Size, 512), 256<<10))); err != nil {
		return content, err
	}
	return [sha256.Size]byte(own.Sum(nil)), nil
}

// open opens it, whatever it has become, but for a link.
func (s spot) open(flags int) (int, error) {
	if s.name == "" {
		return unix.Open(s.path(), flags|unix.O_CLOEXEC, 0)
	}
	return unix.Openat(s.fd, s.name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (h *hasher) directory(ctx context.Context, at spot, shown string) error {
	fd := at.fd
	if at.name != "" {
		var err error
		if fd, err = at.open(unix.O_PATH | unix.O_DIRECTORY); err != nil {
			return &fs.PathError{Op: "open", Path: shown, Err: err}
		}
		defer unix.Close(fd)
	}
	names, err := namesAt(fd)
	if err != nil {
		return &fs.PathError{Op: "read", Path: shown, Err: err}
	}
	for _, name := range names {
		if err := h.entry(ctx, spot{fd, name}, name); err != nil {
			return err
		}
	}
	h.Write([]byte("end\n"))
	return nil
}

// readNames lists an O_PATH directory, sorted.
func readNames(f *os.File) ([]string, error) { return namesAt(int(f.Fd())) }

// namesAt lists a directory that is known by its place (O_PATH), sorted.
func namesAt(at int) ([]string, error) {
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), ".")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
