package snapshot

import (
	"errors"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/archive"
)

// Changes tells what a container's root is, and how it differs from the image.
// What it holds is open until Close.
type Changes struct {
	archive.Diff
	// Linked are the inodes of its files of which LinksName tells.
	Linked map[uint64]bool
	open   []*os.File
}

// Close lets the directories go.
func (c *Changes) Close() error {
	var err error
	for _, f := range c.open {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Changes opens a container's root for reading, whether it runs or not, without
// what is mounted in it. It is fault.NotFound when the container has nothing
// here. Whoever reads it must see to it that the container is not removed
// meanwhile, or find out afterwards.
func (s *Store) Changes(id string) (*Changes, error) {
	m, err := s.Mount(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	chain := s.active[id]
	s.mu.Unlock()
	c := &Changes{Diff: archive.Diff{Made: MountPoints()}, Linked: map[uint64]bool{}}
	if m.Dir == "" {
		err = errors.Join(c.addUpper(m.Upper), c.addAll(&c.Below, m.Lower), ReadLinks(m.Upper, c.Linked))
	} else {
		var image Mount
		if image, err = s.ReadOnly(chain); err == nil && chain != "" {
			err = c.addAll(&c.Below, image.Trees())
		}
		err = errors.Join(err, c.addAll(&c.Whole, m.Trees()))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Changes) addUpper(dir string) (err error) {
	c.Upper, err = c.add(dir)
	return err
}

func (c *Changes) addAll(tree *archive.Tree, dirs []string) error {
	for _, dir := range dirs {
		f, err := c.add(dir)
		if err != nil {
			return err
		}
		*tree = append(*tree, f)
	}
	return nil
}

func (c *Changes) add(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err == nil {
		c.open = append(c.open, f)
	}
	return f, err
}

// LayerChanges opens a layer as it differs from those below it, so that its
// archive can be written again. Whoever holds it must see to it that no Sweep
// takes the layer.
func (s *Store) LayerChanges(chain digest.Digest) (*Changes, error) {
	s.mu.Lock()
	l, err := s.lookupLocked(chain)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c := &Changes{Diff: archive.Diff{Made: MountPoints()}}
	if l.Parent != "" {
		var below Mount
		if below, err = s.ReadOnly(l.Parent); err == nil {
			err = c.addAll(&c.Below, below.Trees())
		}
	}
	if s.name == Overlay {
		err = errors.Join(err, c.addUpper(l.path))
	} else {
		err = errors.Join(err, c.addAll(&c.Whole, []string{l.path}))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// DiffID is that of a layer, and parent the chain below it.
func (s *Store) DiffID(chain digest.Digest) (diffID, parent digest.Digest, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.lookupLocked(chain)
	if err != nil {
		return "", "", err
	}
	return l.DiffID, l.Parent, nil
}

// Difference opens what the tree of the chain upper has beyond that of lower,
// which need not be below it. Whoever holds it must see to it that no Sweep takes
// their layers.
func (s *Store) Difference(lower, upper digest.Digest) (*Changes, error) {
	below, err := s.ReadOnly(lower)
	if err != nil {
		return nil, err
	}
	above, err := s.ReadOnly(upper)
	if err != nil {
		return nil, err
	}
	c := &Changes{}
	if err := errors.Join(c.addAll(&c.Below, below.Trees()), c.addAll(&c.Whole, above.Trees())); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
