package container

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/view"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/supervise"
	"github.com/tarehq/tare/volume"
)

// UsedVolumes tells which containers use each volume. It is a volume.Users.
func (s *Service) UsedVolumes() map[string][]string {
	return usedVolumes(s.store.All())
}

func usedVolumes(records []Record) map[string][]string {
	used := map[string][]string{}
	for _, r := range records {
		seen := map[string]bool{}
		for _, m := range r.Mounts {
			if m.Type == mount.TypeVolume && !seen[m.Name] {
				seen[m.Name] = true
				used[m.Name] = append(used[m.Name], r.ID)
			}
		}
	}
	return used
}

// tellVolumes tells that a run begins or has ceased to use its volumes.
func (s *Service) tellVolumes(r *Record, action events.Action) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		attrs := map[string]string{"driver": m.Driver, "container": r.ID}
		if action == events.ActionMount {
			attrs["destination"], attrs["read/write"], attrs["propagation"] = m.Destination, strconv.FormatBool(!m.ReadOnly), string(m.Propagation)
		}
		s.cfg.Events.Publish(events.VolumeEventType, action, events.Actor{ID: m.Name, Attributes: attrs})
	}
}

// unmountVolumes lets go of a run's volumes.
func (s *Service) unmountVolumes(ctx context.Context, r *Record) error {
	var errs []error
	for _, m := range r.Mounts {
		if m.Type == mount.TypeVolume {
			errs = append(errs, s.cfg.Volumes.Unmount(ctx, m.Name, r.ID))
		}
	}
	return errors.Join(errs...)
}

// removeVolumes removes the volumes without a name of their own that a removed
// container used and nobody else does.
func (s *Service) removeVolumes(ctx context.Context, r *Record) error {
	var errs []error
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume || !m.Anonymous {
			continue
		}
		if err := s.cfg.Volumes.Remove(ctx, m.Name, true); !errors.Is(err, fault.Conflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// mountAll makes what a run mounts reachable: it mounts volumes that are mounts,
// makes the missing directories of -v, and opens what no path leads to.
func (b *bundle) mountAll(ctx context.Context, back *undo.Stack) error {
	s, r := b.containers, b.r
	list := r.Mounted()
	if len(list) == 0 {
		return nil
	}
	b.mounts = append([]spec.Mount(nil), list...)
	back.Push(func() error { return s.unmountVolumes(context.WithoutCancel(ctx), r) })
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
	s.tellVolumes(r, events.ActionMount)
	back.Push(func() error { s.tellVolumes(r, events.ActionUnmount); return nil })
	return nil
}

func (b *bundle) mount(ctx context.Context, m *spec.Mount) error {
	s, r := b.containers, b.r
	switch m.Type {
	case mount.TypeTmpfs:
		return nil
	case mount.TypeBind:
		if err := prepareSource(m); err != nil {
			return err
		}
		if err := b.label(m, m.Source); err != nil || !m.Shared() {
			return err
		}
		tree, err := cloneTree(m.Source, m.Bind == nil || !m.Bind.NonRecursive)
		if err != nil {
			return err
		}
		b.hand(m, tree, "")
	case mount.TypeVolume:
		path, err := s.reachVolume(ctx, r, m, r.ID)
		if err != nil {
			return err
		}
		m.Place = path
		if err := b.label(m, path); err != nil || m.Subpath() == "" {
			return err
		}
		tree, err := cloneBelow(path, m.Subpath())
		if err != nil {
			return err
		}
		b.hand(m, tree, "")
	case mount.TypeImage:
		tree, err := s.imageTree(ctx, r.MountedImages[m.Destination], b.seenBy())
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

// reachVolume mounts a volume for a user. After power loss a container that was
// created in its last moments may be there without the volume of its own, which has
// nothing in it then.
func (s *Service) reachVolume(ctx context.Context, r *Record, m *spec.Mount, user string) (string, error) {
	path, err := s.cfg.Volumes.Mount(ctx, m.Name, user)
	if !errors.Is(err, fault.NotFound) || !m.Anonymous || r.State != record.Created || !r.StartedAt.IsZero() {
		return path, forCreate(err)
	}
	c := &creation{containers: s}
	f := &furnishing{creation: c, r: r}
	req := volume.CreateRequest{Name: m.Name, Driver: m.Driver, Labels: map[string]string{volume.AnonymousLabel: ""}, Volatile: r.AutoRemove()}
	if _, err := s.cfg.Volumes.Create(ctx, req); err != nil {
		return "", err
	}
	if !m.NoCopy {
		view, err := s.cfg.Snapshots.View(r.ID)
		if err != nil {
			return "", err
		}
		defer view.Close()
		if err := f.populateOne(ctx, m, view.Root()); err != nil {
			return "", err
		}
	}
	return s.cfg.Volumes.Mount(ctx, m.Name, user)
}

// prepareSource makes the missing source directory of -v, as Docker does, and
// refuses a --mount whose source is not there.
func prepareSource(m *spec.Mount) error {
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return fault.New(fault.Invalid, "cannot bind %s: %w", m.Source, err)
	case m.Strict:
		return noSource(m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fault.New(fault.Invalid, "error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

// cloneTree makes a detached mount of what lies at a path.
func cloneTree(path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// cloneBelow does so of a part of a volume.
func cloneBelow(path, subpath string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return supervise.CloneBelow(int(dir.Fd()), subpath)
}

// imageTree mounts what an image's layers make, to be read.
func (s *Service) imageTree(ctx context.Context, img record.Image, users *overlayfs.Users) (*os.File, error) {
	m, err := s.cfg.Snapshots.ReadOnly(img.ChainID)
	if errors.Is(err, fault.NotFound) { // power loss, or the image was removed by force
		if _, err = s.cfg.Images.UnpackManifest(ctx, img.Manifest); err == nil {
			m, err = s.cfg.Snapshots.ReadOnly(img.ChainID)
		}
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "the image %s that is to be mounted cannot be used: %w", img.ID, err)
	}
	return view.ReadOnly(m, users)
}
