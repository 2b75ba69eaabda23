package container

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// sizes gives the bytes that a container's writable layer takes, and those of
// its whole root. Files with several names count once.
func (s *Service) sizes(ctx context.Context, r Record) (rw, root int64, err error) {
	m, err := s.cfg.Snapshots.Mount(r.ID)
	if err != nil {
		return 0, 0, err
	}
	if rw, err = usage(ctx, m.Upper); err != nil {
		return 0, 0, err
	}
	root = rw
	for _, layer := range m.Lower {
		n, err := usage(ctx, layer)
		if err != nil {
			return 0, 0, err
		}
		root += n
	}
	return rw, root, nil
}

func usage(ctx context.Context, dir string) (total int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it changes while we look
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		total += info.Size()
		return nil
	})
	return total, err
}
