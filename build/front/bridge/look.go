package bridge

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/internal/openat"
)

// maxFile bounds a file that a front end reads, in bytes.
const maxFile = 64 << 20

// maxNames bounds a directory that one lists.
const maxNames = 1 << 20

// within opens a path of a tree, below the directory or file below, inside its root.
func within(t build.Tree, below, name string, flags uint64) (*os.File, error) {
	asked := name
	name = strings.TrimPrefix(path.Join("/", below, path.Join("/", name)), "/")
	if name == "" {
		name = "."
	}
	fd, err := openat.Open(int(t.Root().Fd()), name, flags, openat.InRoot|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: asked, Err: err} // where it lies here is nobody's concern
	}
	return os.NewFile(uintptr(fd), name), nil
}

func readFile(t build.Tree, below string, req gateway.ReadRequest) ([]byte, error) {
	f, err := within(t, below, req.Filename, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, &fs.PathError{Op: "read", Path: req.Filename, Err: errors.New("it is no regular file")})
	}
	in := io.Reader(f)
	if g := req.Range; g != nil {
		if _, err := f.Seek(int64(g.Offset), io.SeekStart); err != nil {
			return nil, err
		}
		if g.Length > 0 {
			in = io.LimitReader(f, int64(g.Length))
		}
	}
	return io.ReadAll(io.LimitReader(in, maxFile))
}

func statFile(t build.Tree, below string, req gateway.StatRequest) (*fstypes.Stat, error) {
	f, err := within(t, below, req.Path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return stat(f, path.Base(req.Path))
}

func readDir(t build.Tree, below string, req gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	dir, err := within(t, below, req.Path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxNames)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var list []*fstypes.Stat
	for _, name := range names {
		if req.IncludePattern != "" {
			if ok, err := path.Match(req.IncludePattern, name); err != nil || !ok {
				continue
			}
		}
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		f := os.NewFile(uintptr(fd), name)
		s, err := stat(f, name)
		f.Close()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func stat(f *os.File, name string) (*fstypes.Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &fstypes.Stat{Path: name, Mode: uint32(info.Mode()), Uid: st.Uid, Gid: st.Gid, Size: st.Size, ModTime: info.ModTime().UnixNano()}
	if info.Mode()&fs.ModeSymlink != 0 {
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.Fd()), "", buf)
		if err != nil {
			return nil, err
		}
		s.Linkname = string(buf[:n])
	}
	return s, nil
}
