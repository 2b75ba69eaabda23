package snapshot

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Usage gives the bytes of the files that a container has changed or made, and
// those of its whole root. Files with several names count once, and those that no
// path leads to, as it would be too long, not at all. The tree may change
// meanwhile.
func (s *Store) Usage(ctx context.Context, id string) (changed, all int64, err error) {
	m, err := s.Mount(id)
	if err != nil {
		return 0, 0, err
	}
	if m.Dir != "" {
		return s.wholeUsage(ctx, id, m.Dir)
	}
	for i, tree := range m.Trees() {
		u := usage{ctx: ctx, seen: map[inode]bool{}}
		if err := u.trees(tree, ""); err != nil {
			return 0, 0, err
		}
		all += u.all
		if i == 0 {
			changed = u.all
		}
	}
	return changed, all, nil
}

// wholeUsage compares the container's tree with that of the layers below.
func (s *Store) wholeUsage(ctx context.Context, id, tree string) (changed, all int64, err error) {
	s.mu.Lock()
	below, err := s.lowerLocked(s.active[id])
	s.mu.Unlock()
	if err != nil {
		return 0, 0, err
	}
	from := s.path("empty")
	if len(below) > 0 {
		from = below[0]
	}
	u := usage{ctx: ctx, seen: map[inode]bool{}}
	err = u.trees(tree, from)
	return u.changed, u.all, err
}

type inode struct{ dev, ino uint64 }

// usage sums up sizes.
type usage struct {
	ctx          context.Context
	seen         map[inode]bool
	changed, all int64
	depth        int
}

// maxDepth is how many levels of a tree are looked at: paths, of 4,096 bytes at
// most, lead no deeper. Anybody who may make directories can make more of them,
// and each takes a descriptor of the daemon's.
const maxDepth = 2048

// trees walks one tree, beside the one that it was made from, "" for none.
func (u *usage) trees(tree, from string) error {
	d, err := openDir(unix.AT_FDCWD, tree)
	if err != nil {
		return err
	}
	defer d.Close()
	var below *os.File
	if from != "" {
		if below, err = openDir(unix.AT_FDCWD, from); err != nil {
			return err
		}
		defer below.Close()
	}
	return u.directory(d, below)
}

func (u *usage) directory(dir, below *os.File) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			if err := u.entry(dir, below, name); err != nil {
				return err
			}
		}
		if len(names) == 0 { // or the directory is gone
			if err == io.EOF || errors.Is(err, unix.ENOENT) {
				err = nil
			}
			return err
		}
	}
}

func (u *usage) entry(dir, below *os.File, name string) error {
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil // it is gone
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		u.file(name, &st, below)
	case unix.S_IFDIR:
		return u.subdirectory(dir, below, name)
	}
	return nil
}

func (u *usage) subdirectory(dir, below *os.File, name string) error {
	if u.depth == maxDepth {
		return nil
	}
	u.depth++
	defer func() { u.depth-- }()
	sub, err := openDir(int(dir.Fd()), name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // it is gone
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	if below != nil {
		if below, err = openDir(int(below.Fd()), name); err != nil {
			below = nil
		} else {
			defer below.Close()
		}
	}
	return u.directory(sub, below)
}

func (u *usage) file(name string, st *unix.Stat_t, below *os.File) {
	if st.Nlink > 1 {
		key := inode{uint64(st.Dev), st.Ino}
		if u.seen[key] {
			return
		}
		u.seen[key] = true
	}
	u.all += st.Size
	var old unix.Stat_t
	if below != nil && unix.Fstatat(int(below.Fd()), name, &old, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		old.Mode == st.Mode && old.Size == st.Size && old.Mtim == st.Mtim && old.Uid == st.Uid && old.Gid == st.Gid {
		return
	}
	u.changed += st.Size
}
