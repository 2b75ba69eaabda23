package volume

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	wire "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// Usage tells what the local volumes hold that are no mounts, and for how many
// containers. It reads all of them.
func (s *Service) Usage(ctx context.Context) (*wire.DiskUsage, error) {
	var list []Record
	for _, r := range s.all() {
		if r.Driver == Local && !needsMount(&r) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b Record) int { return cmp.Compare(a.Name, b.Name) })
	u := &wire.DiskUsage{TotalCount: int64(len(list)), Items: make([]wire.Volume, len(list))}
	var next atomic.Int64
	var reading sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		reading.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(list)); i = next.Add(1) - 1 {
				size, err := sizeOf(ctx, s.data(list[i].Name))
				if err != nil {
					size = -1 // removed meanwhile, or not to be told
				}
				u.Items[i] = s.wire(list[i], nil)
				u.Items[i].UsageData = &wire.UsageData{Size: size}
			}
		})
	}
	reading.Wait()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	users := s.usersOf()
	for i := range u.Items {
		data := u.Items[i].UsageData
		data.RefCount = int64(len(users[u.Items[i].Name]))
		u.TotalSize += max(data.Size, 0)
		if data.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += max(data.Size, 0)
		}
	}
	return u, nil
}

// sizeOf adds up the files below a directory, one of several names once, as
// Docker does. Containers may change the tree meanwhile; no link is followed.
func sizeOf(ctx context.Context, path string) (int64, error) {
	dir, err := openDirectory(path)
	if err != nil {
		return 0, err
	}
	m := &measure{ctx: ctx, seen: map[[2]uint64]bool{}}
	err = m.directory(dir, 0)
	return m.size, err
}

type measure struct {
	ctx  context.Context
	size int64
	seen map[[2]uint64]bool // files of several names, by device and inode
}

// maxDepth is how deep a tree is looked at: each level is a descriptor.
const maxDepth = 1024

func (m *measure) directory(dir *os.File, depth int) error {
	defer dir.Close()
	if depth > maxDepth {
		return errors.New("its directories are too deep")
	}
	for {
		entries, readErr := dir.ReadDir(1024)
		if err := m.ctx.Err(); err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				fd, err := unix.Openat(int(dir.Fd()), e.Name(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
				if err != nil { // gone meanwhile
					continue
				}
				if err := m.directory(os.NewFile(uintptr(fd), e.Name()), depth+1); err != nil {
					return err
				}
				continue
			}
			var st unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue
			}
			if key := [2]uint64{uint64(st.Dev), st.Ino}; st.Nlink > 1 {
				if m.seen[key] {
					continue
				}
				m.seen[key] = true
			}
			m.size += st.Size
		}
		if len(entries) == 0 || readErr != nil {
			return nil
		}
	}
}
