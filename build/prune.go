package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/snapshot"
)

// The types of what the cache has, as BuildKit calls them.
const (
	TypeRegular = "regular"
	TypeLocal   = "source.local"
	TypeGit     = "source.git.checkout"
	TypeMount   = "exec.cachemount"
)

// Usage is one part of the cache, as far as users see it.
type Usage struct {
	ID, Description, Type string
	Parents               []string
	Size                  int64 // bytes on disk of its own
	Created, LastUsed     time.Time
	Uses                  int
	InUse                 bool // by a build
	Shared                bool // an image has its layers

	drop  func(context.Context) error
	chain digest.Digest   // of a result
	on    []digest.Digest // chains below it
}

// PruneOptions say what goes: a rule, and what it is about.
type PruneOptions struct {
	keep.Rule
	Match func(Usage) bool // nil for all; in place of the rule's filters
}

// Usage lists the cache, that which was used last first.
func (s *Solver) Usage(ctx context.Context) ([]Usage, error) {
	shared, err := s.Store.Needed(ctx)
	if err != nil {
		return nil, err
	}
	needed := map[digest.Digest]bool{}
	for _, chain := range shared {
		needed[chain] = true
	}
	if err := s.cache.measure(ctx); err != nil {
		return nil, err
	}
	records := s.cache.list()
	madeBy := map[digest.Digest]string{} // chain → record
	for _, r := range records {
		for _, layers := range r.Outputs {
			if n := len(layers); n > 0 {
				madeBy[layers[n-1].Chain] = r.Key.Encoded()
			}
		}
	}
	var list []Usage
	for _, r := range records {
		u := Usage{ID: r.Key.Encoded(), Description: r.Description, Type: r.Type, Size: r.Size, Created: r.Created, LastUsed: r.LastUsed, Uses: r.Uses,
			InUse: s.cache.inUse(r.Key), drop: func(ctx context.Context) error { return s.cache.forget(ctx, []digest.Digest{r.Key}) }}
		for _, layers := range r.Outputs {
			n := len(layers)
			if n > 0 {
				u.chain = layers[n-1].Chain
				u.on = append(u.on, below(layers)...)
			}
			if n > 0 && needed[layers[n-1].Chain] {
				u.Shared = true
			}
			if n > 1 && madeBy[layers[n-2].Chain] != "" {
				u.Parents = append(u.Parents, madeBy[layers[n-2].Chain])
			}
		}
		list = append(list, u)
	}
	kept, err := s.kept()
	list = append(list, kept...)
	slices.SortStableFunc(list, func(a, b Usage) int { return b.LastUsed.Compare(a.LastUsed) })
	return list, err
}

// kept lists the directories that builds keep.
func (s *Solver) kept() (list []Usage, err error) {
	for _, shelf := range []*shelf{&s.sources, &s.caches.shelf} {
		names, e := shelf.names()
		err = errors.Join(err, e)
		for _, name := range names {
			a := shelf.about(name)
			u := Usage{ID: name, Description: a.ID, Type: TypeMount, Created: a.Created, LastUsed: a.LastUsed, Uses: a.Uses, InUse: shelf.inUse(name)}
			switch {
			case shelf == &s.caches.shelf:
				u.Description = "cached mount " + a.ID
			case strings.HasPrefix(a.ID, "git "):
				u.Type = TypeGit
			case strings.HasPrefix(a.ID, "http "):
				u.Type = TypeRegular
			default:
				u.Type = TypeLocal
			}
			if u.Size, e = s.sizes.of(shelf, name, a); errors.Is(e, fs.ErrNotExist) {
				continue // pruned meanwhile
			}
			err = errors.Join(err, e)
			u.drop = func(context.Context) error { _, err := shelf.drop(name); return err }
			list = append(list, u)
		}
	}
	return list, err
}

// blocks is what a directory takes on disk, in bytes. It may be hostile and
// change meanwhile.
func blocks(dir string) (n int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	seen := map[uint64]bool{} // of several names
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has gone, or is too deep to be counted
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Nlink > 1 && !d.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		n += st.Blocks * 512
		return nil
	})
	return n, err
}

// below are the chains that the topmost layer stands on, or was made out of.
func below(layers []Layer) (list []digest.Digest) {
	for i, l := range layers {
		if i < len(layers)-1 {
			list = append(list, l.Chain)
		}
		if l.MadeOn != nil {
			list = append(list, snapshot.ChainID(*l.MadeOn, l.DiffID))
		}
	}
	return list
}

// sizes remembers how large kept directories are, until they are used again.
type sizes struct {
	mu    sync.Mutex
	known map[string]measured
}

type measured struct {
	uses int
	used time.Time
	size int64
}

func (m *sizes) of(shelf *shelf, name string, a about) (int64, error) {
	dir := filepath.Join(shelf.dir, name)
	m.mu.Lock()
	k, ok := m.known[dir]
	m.mu.Unlock()
	if ok && k.uses == a.Uses && k.used.Equal(a.LastUsed) {
		return k.size, nil
	}
	idle := !shelf.inUse(name)
	n, err := blocks(dir)
	if err == nil && idle && !shelf.inUse(name) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.known == nil {
			m.known = map[string]measured{}
		}
		m.known[dir] = measured{a.Uses, a.LastUsed, n}
	}
	return n, err
}

// Prune makes the cache smaller and returns what went. each, unless nil, is told
// of it as it goes. What others stand on goes after them: before it would free
// nothing.
func (s *Solver) Prune(ctx context.Context, o PruneOptions, each func(Usage)) (gone []Usage, err error) {
	list, err := s.Usage(ctx)
	if err != nil {
		return nil, err
	}
	if o.Match == nil {
		if o.Match, err = ParseFilters(o.Filter); err != nil {
			return nil, err
		}
	}
	over, err := s.excess(list, o.Rule)
	if err != nil {
		return nil, err
	}
	bearing := map[digest.Digest]int{} // chains → how many stand on it
	for _, u := range list {
		for _, chain := range u.on {
			bearing[chain]++
		}
	}
	for again := true; again && over > 0; {
		again = false
		for i, u := range slices.Backward(list) {
			if over <= 0 {
				break
			}
			if u.drop == nil || u.InUse || u.Shared && !o.All || u.chain != "" && bearing[u.chain] > 0 || time.Since(u.LastUsed) < o.Unused || !o.Match(u) {
				continue
			}
			if err := u.drop(ctx); err != nil {
				return gone, err
			}
			list[i].drop = nil
			for _, chain := range u.on {
				bearing[chain]--
				again = true
			}
			if u.Shared {
				u.Size = 0 // the image still has it
			}
			over -= max(u.Size, 1)
			gone = append(gone, u)
			if each != nil {
				each(u)
			}
		}
	}
	return gone, nil
}

// excess is how many bytes should go. What images have is theirs, and does not
// count.
func (s *Solver) excess(list []Usage, r keep.Rule) (int64, error) {
	const all = 1 << 62
	if r.Reserved == 0 && r.Max == 0 && r.MinFree == 0 {
		return all, nil
	}
	var total, over int64
	for _, u := range list {
		if !u.Shared {
			total += u.Size
		}
	}
	switch {
	case r.Max > 0:
		over = total - r.Max
	case r.MinFree == 0:
		over = total - r.Reserved
	}
	if r.MinFree > 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(s.Root, &st); err != nil {
			return 0, err
		}
		over = max(over, r.MinFree-int64(st.Bavail)*st.Bsize)
	}
	return min(over, total-r.Reserved), nil
}
