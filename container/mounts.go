package container

import (
	"context"
	"os"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/mounts"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/supervise"
)

// mountAll makes what a run mounts reachable: it mounts volumes that are mounts,
// makes the missing directories of -v, and opens what no path leads to.
func (b *bundle) mountAll(ctx context.Context, back *undo.Stack) error {
	s, r := b.containers, b.r
	list := r.Mounted()
	if len(list) == 0 {
		return nil
	}
	b.mounts = append([]spec.Mount(nil), list...)
	back.Push(func() error { return s.Mounts.Unmount(context.WithoutCancel(ctx), r) })
	for i := range b.mounts {
		m := &b.mounts[i]
		if err := b.mount(ctx, m); err != nil {
			return err
		}
		if m.IDMap == nil {
			continue
		}
		if err := b.findOwner(m); err != nil {
			return err
		}
	}
	s.Mounts.Tell(r, events.ActionMount)
	back.Push(func() error { s.Mounts.Tell(r, events.ActionUnmount); return nil })
	return nil
}

func (b *bundle) mount(ctx context.Context, m *spec.Mount) error {
	s, r := b.containers, b.r
	switch m.Type {
	case mount.TypeTmpfs:
		return nil
	case mount.TypeBind:
		if err := mounts.PrepareSource(m); err != nil {
			return err
		}
		if err := b.label(m, m.Source); err != nil || !m.Shared() {
			return err
		}
		tree, err := mounts.CloneTree(m.Source, m.Bind == nil || !m.Bind.NonRecursive)
		if err != nil {
			return err
		}
		b.hand(m, tree, "")
	case mount.TypeVolume:
		path, err := s.Mounts.Reach(ctx, r, m, r.ID)
		if err != nil {
			return err
		}
		m.Place = path
		if err := b.label(m, path); err != nil || m.Subpath() == "" {
			return err
		}
		tree, err := mounts.CloneBelow(path, m.Subpath())
		if err != nil {
			return err
		}
		b.hand(m, tree, "")
	case mount.TypeImage:
		tree, err := s.Mounts.Image(ctx, r.MountedImages[m.Destination], b.seenBy())
		if err != nil {
			return err
		}
		b.hand(m, tree, m.Subpath())
	}
	return nil
}

// findOwner looks whose it is that is mounted.
func (b *bundle) findOwner(m *spec.Mount) error {
	var st unix.Stat_t
	var err error
	path := m.Source
	if m.Place != "" {
		path = m.Place
	}
	if n := len(b.trees); n > 0 && m.Place == supervise.MountPath(b.dir, n-1) { // reached by descriptor
		err = unix.Fstat(int(b.trees[n-1].Tree.Fd()), &st)
	} else {
		err = unix.Stat(path, &st)
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	m.Owner = spec.Owner{UID: st.Uid, GID: st.Gid}
	return nil
}

// hand has the supervising process mount a tree by descriptor.
func (b *bundle) hand(m *spec.Mount, tree *os.File, subpath string) {
	m.Place = supervise.MountPath(b.dir, len(b.trees))
	b.trees = append(b.trees, supervise.Mount{Tree: tree, Subpath: subpath})
}
