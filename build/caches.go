package build

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/treecopy"
)

// caches are the directories of RUN --mount=type=cache. They live on between
// builds:
//
//	<root>/mounts/<key>.<n>/tree        the files
//	                        about.json  an About
//
// n is 0 but for those of which several steps wanted one each at a time.
type caches struct {
	dir string

	mu   sync.Mutex
	used map[string]*use // by name
	free chan struct{}   // closed and replaced when one is given back
}

// use is who has a cache.
type use struct {
	steps int
	alone bool // nobody else may have it
}

// about is what is remembered of a cache.
type about struct {
	ID       string
	Created  time.Time
	LastUsed time.Time
	Uses     int
}

func openCaches(root string) (*caches, error) {
	c := &caches{dir: filepath.Join(root, "mounts"), used: map[string]*use{}, free: make(chan struct{})}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(c.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "new") || strings.HasPrefix(e.Name(), "old") { // half made, half deleted
			err = errors.Join(err, c.remove(e.Name()))
		}
	}
	return c, err
}

func (c *caches) remove(name string) error {
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return treecopy.Remove(dir, name)
}

// hold gives a step the cache of a key, and tells its name. Until release nobody
// else has it who may not.
func (c *caches) hold(ctx context.Context, key string, sharing pb.CacheSharingOpt) (name string, release func(), err error) {
	for {
		c.mu.Lock()
		name, ok := c.takeLocked(key, sharing)
		free := c.free
		c.mu.Unlock()
		if ok {
			return name, func() { c.release(name) }, nil
		}
		select {
		case <-free:
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		}
	}
}

func (c *caches) takeLocked(key string, sharing pb.CacheSharingOpt) (string, bool) {
	for n := 0; ; n++ {
		name := key + "." + strconv.Itoa(n)
		u := c.used[name]
		switch {
		case u == nil:
			c.used[name] = &use{steps: 1, alone: sharing != pb.CacheSharingOpt_SHARED}
			return name, true
		case sharing == pb.CacheSharingOpt_SHARED && !u.alone:
			u.steps++
			return name, true
		case sharing != pb.CacheSharingOpt_PRIVATE:
			return "", false
		}
	}
}

func (c *caches) release(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.used[name]
	if u.steps--; u.steps > 0 {
		return
	}
	delete(c.used, name)
	close(c.free)
	c.free = make(chan struct{})
}

// open opens a cache that is held. If it is new, fill may put something into it.
func (c *caches) open(name, id string, fill func(tree *os.File) error) (*tree, error) {
	dir := filepath.Join(c.dir, name)
	c.mu.Lock() // of a shared one there is one who makes it
	defer c.mu.Unlock()
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := c.make(name, fill); err != nil {
			return nil, err
		}
	}
	a := c.about(name)
	if a.Created.IsZero() {
		a.Created = time.Now().UTC()
	}
	a.ID, a.LastUsed, a.Uses = id, time.Now().UTC(), a.Uses+1
	data, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(dir, "about.json"), data, 0o600); err != nil {
		return nil, err
	}
	fd, err := overlayfs.Bind(filepath.Join(dir, "tree"), unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	return &tree{root: os.NewFile(uintptr(fd), "/")}, nil
}

func (c *caches) about(name string) (a about) {
	if data, err := os.ReadFile(filepath.Join(c.dir, name, "about.json")); err == nil {
		_ = json.Unmarshal(data, &a) // a cache may forget
	}
	return a
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
		t, err := s.job.solver.caches.open(name, w.m.CacheOpt.GetID(), func(to *os.File) error { return s.fillCache(ctx, to, w.from, w.m.Selector) })
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
