package foreign

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Content is what BuildKit calls the content of parts of a tree: with no parts of all
// of it. open opens a path of the tree without reading it (O_PATH); with follow, what
// a link at its end leads to. What is chosen by patterns is not known: ok is false.
func Content(ctx context.Context, open func(name string, follow bool) (*os.File, error), parts []Part) (sum digest.Digest, ok bool, err error) {
	if len(parts) == 0 {
		parts = []Part{{Path: "/"}}
	}
	var sums [][]byte
	for _, p := range parts {
		if p.filtered() || len(p.Required) > 0 {
			return "", false, nil
		}
		f, err := open(p.Path, p.Follow)
		if err != nil {
			return "", false, err
		}
		d, err := entry(ctx, f)
		f.Close()
		if err != nil {
			return "", false, err
		}
		sums = append(sums, []byte(d))
	}
	return digest.FromBytes(bytes.Join(sums, []byte{0})), true, nil
}

// entry is the digest of a file, or of a directory with what is in it.
func entry(ctx context.Context, f *os.File) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	h := sha256.New()
	if err := head(h, f, &st); err != nil {
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		r, err := os.Open(magic(f))
		if err != nil {
			return "", err
		}
		defer r.Close()
		if _, err := io.Copy(h, r); err != nil {
			return "", err
		}
	case unix.S_IFDIR:
		return directory(ctx, f, digest.NewDigest(digest.SHA256, h))
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

func directory(ctx context.Context, f *os.File, own digest.Digest) (digest.Digest, error) {
	fd, err := unix.Openat(int(f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	d := os.NewFile(uintptr(fd), f.Name())
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return "", err
	}
	slices.Sort(names)
	h := sha256.New()
	fmt.Fprintf(h, "\x00%s", own)
	for _, name := range names {
		fd, err := unix.Openat(int(f.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", &os.PathError{Op: "open", Path: name, Err: err}
		}
		child := os.NewFile(uintptr(fd), name)
		sum, err := entry(ctx, child)
		child.Close()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "\x00%s%s", name, sum)
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// kinds are the letters of tar(5) for kinds of files.
var kinds = map[uint32]string{unix.S_IFREG: "0", unix.S_IFLNK: "2", unix.S_IFCHR: "3", unix.S_IFBLK: "4", unix.S_IFDIR: "5", unix.S_IFIFO: "6"}

// head writes what counts of a file beside its bytes, in the form of the tarsum of old.
func head(h hash.Hash, f *os.File, st *unix.Stat_t) error {
	kind, known := kinds[st.Mode&unix.S_IFMT]
	if !known { // a socket, of which BuildKit takes the rest
		kind = "0"
	}
	mode, size, link, major, minor := st.Mode&0o7777, int64(0), "", uint32(0), uint32(0)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		size = st.Size
	case unix.S_IFLNK:
		mode |= 0o777
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", buf)
		if err != nil {
			return &os.PathError{Op: "readlink", Path: f.Name(), Err: err}
		}
		link = string(buf[:n])
	case unix.S_IFCHR, unix.S_IFBLK:
		major, minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
	for _, field := range [][2]string{{"name", ""}, {"mode", strconv.Itoa(int(mode))}, {"uid", strconv.Itoa(int(st.Uid))}, {"gid", strconv.Itoa(int(st.Gid))},
		{"size", strconv.FormatInt(size, 10)}, {"typeflag", kind}, {"linkname", link}, {"uname", ""}, {"gname", ""},
		{"devmajor", strconv.Itoa(int(major))}, {"devminor", strconv.Itoa(int(minor))}} {
		fmt.Fprint(h, field[0], field[1])
	}
	return attributes(h, f)
}

// attributes writes those that count.
func attributes(h hash.Hash, f *os.File) error {
	list := make([]byte, 64<<10)
	n, err := unix.Listxattr(magic(f), list)
	if err != nil || n == 0 {
		return nil // the file system has none
	}
	names := strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	value := make([]byte, 64<<10)
	for _, name := range names {
		if name != "security.capability" && (strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "system.")) {
			continue
		}
		n, err := unix.Getxattr(magic(f), name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "getxattr", Path: f.Name(), Err: err}
		}
		fmt.Fprint(h, name, string(value[:n]))
	}
	return nil
}

// magic is a path that leads to an opened file.
func magic(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
