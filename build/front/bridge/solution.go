package bridge

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/internal/openat"
)

// Solution is a result that is solved when somebody looks at it. It is a
// gateway.Reference.
type Solution struct {
	bridge     *Bridge
	definition *pb.Definition

	once   sync.Mutex
	result *build.Result
}

// maxFile bounds a file that a front end reads, in bytes.
const maxFile = 64 << 20

// Solved is the result, which is made at the first call.
func (r *Solution) Solved(ctx context.Context) (*build.Result, error) {
	r.once.Lock()
	defer r.once.Unlock()
	if r.result != nil {
		return r.result, nil
	}
	var err error
	r.result, err = r.bridge.Job.Solve(ctx, r.definition)
	return r.result, located(err, r.definition)
}

// Evaluate has the result made.
func (r *Solution) Evaluate(ctx context.Context) error {
	_, err := r.Solved(ctx)
	return err
}

func (r *Solution) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.definition)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

// within opens a path of the result as a place (O_PATH), inside its root.
func (r *Solution) within(ctx context.Context, name string, flags uint64) (*os.File, error) {
	result, err := r.Solved(ctx)
	if err != nil {
		return nil, err
	}
	tree, err := result.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	name = strings.TrimPrefix(path.Join("/", name), "/")
	if name == "" {
		name = "."
	}
	fd, err := openat.Open(int(tree.Root().Fd()), name, flags, openat.InRoot)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (r *Solution) ReadFile(ctx context.Context, req gateway.ReadRequest) ([]byte, error) {
	f, err := r.within(ctx, req.Filename, unix.O_RDONLY|unix.O_NONBLOCK)
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

func (r *Solution) StatFile(ctx context.Context, req gateway.StatRequest) (*fstypes.Stat, error) {
	f, err := r.within(ctx, req.Path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return stat(f, path.Base(req.Path))
}

func (r *Solution) ReadDir(ctx context.Context, req gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	dir, err := r.within(ctx, req.Path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
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
