package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/treecopy"
)

// caches are the directories of RUN --mount=type=cache. They live on between
// builds:
//
//	<root>/mounts/<key>.<n>/tree        the files
//	                        about.json  an about
type caches struct {
	shelf
	making sync.Mutex // of a shared one there is one who makes it
}

func openCaches(root string) (*caches, error) {
	c := &caches{shelf: newShelf(root, "mounts")}
	return c, c.open()
}

// tree opens a cache that is held. If it is new, fill may put something into it.
func (c *caches) tree(name, id string, users *overlayfs.Users, fill func(tree *os.File) error) (*tree, error) {
	dir := filepath.Join(c.dir, name)
	c.making.Lock()
	defer c.making.Unlock()
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := c.make(name, fill); err != nil {
			return nil, err
		}
	}
	a := c.about(name)
	a.used(id)
	if err := c.tell(name, a); err != nil {
		return nil, err
	}
	fd, err := overlayfs.BindFor(filepath.Join(dir, "tree"), unix.MOUNT_ATTR_NODEV, users)
	if err != nil {
		return nil, err
	}
	return &tree{root: os.NewFile(uintptr(fd), "/")}, nil
}

func (c *caches) make(name string, fill func(tree *os.File) error) (err error) {
	tmp, err := os.MkdirTemp(c.dir, "new")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove(filepath.Base(tmp)))
		}
	}()
	path := filepath.Join(tmp, "tree")
	if err := errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o755)); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = fill(dir)
	dir.Close()
	if err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(c.dir, name))
}

// takeCaches holds the caches that the step mounts, in the order of their keys.
func (s *step) takeCaches(ctx context.Context, mounts []*pb.Mount) error {
	s.caches = map[*pb.Mount]*tree{}
	type want struct {
		m    *pb.Mount
		from *output
		key  string
	}
	var list []want
	for _, m := range mounts {
		if m.MountType != pb.MountType_CACHE {
			continue
		}
		w := want{m: m}
		said := m.CacheOpt.GetID()
		if m.Input >= 0 && int(m.Input) < len(s.in) {
			w.from = s.in[m.Input]
			said += "\x00" + w.from.chain().String() + w.from.dir + "\x00" + m.Selector
		}
		w.key = digest.FromString(said).Encoded()
		list = append(list, w)
	}
	slices.SortStableFunc(list, func(a, b want) int { return strings.Compare(a.key, b.key) })
	held := map[string]string{} // one step may mount a cache twice
	for _, w := range list {
		name, ok := held[w.key]
		if !ok {
			var release func()
			var err error
			if name, release, err = s.job.solver.caches.hold(ctx, w.key, w.m.CacheOpt.GetSharing()); err != nil {
				return err
			}
			held[w.key] = name
			s.back.Push(func() error { release(); return nil })
		}
		t, err := s.job.solver.caches.tree(name, w.m.CacheOpt.GetID(), s.users.shown(), func(to *os.File) error { return s.fillCache(ctx, to, w.from, w.m.Selector) })
		if err != nil {
			return err
		}
		s.caches[w.m] = t
	}
	return nil
}

// fillCache copies what a new cache begins with.
func (s *step) fillCache(ctx context.Context, to *os.File, from *output, selector string) error {
	if from == nil {
		return nil
	}
	t, err := s.job.solver.open(ctx, from)
	if err != nil {
		return err
	}
	defer t.Close()
	place, err := t.openPath(selector, true)
	if err != nil {
		return err
	}
	defer place.Close()
	src, err := os.OpenFile(fdPath(place), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	return treecopy.Copy(ctx, to, src)
}
