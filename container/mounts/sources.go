package mounts

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/view"
	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/supervise"
)

// Sources are what a container that does not run has beside its root: the
// engine's files, and what the user asked for, parents before children.
type Sources struct {
	List []view.Bind

	maker   *Maker
	r       *record.Record
	users   *overlayfs.Users // in which they are seen; nil for the host's
	user    string           // of the volumes
	volumes []string         // that are mounted for the view
}

// Close lets go of all.
func (s *Sources) Close() error {
	var errs []error
	for _, one := range s.List {
		one.Tree.Close()
	}
	for _, name := range s.volumes {
		errs = append(errs, s.maker.Volumes.Unmount(context.Background(), name, s.user))
	}
	s.List, s.volumes = nil, nil
	return errors.Join(errs...)
}

// Open makes the mounts of a container that does not run, at no place yet, seen by
// these users.
func (k *Maker) Open(ctx context.Context, r *record.Record, users *overlayfs.Users) (*Sources, error) {
	s := &Sources{maker: k, r: r, users: users}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Sources) open(ctx context.Context) error {
	var in spec.Input
	s.maker.Store.HostFiles(s.r.ID, &in)
	for target, path := range map[string]string{"/etc/hosts": in.Hosts, "/etc/hostname": in.Hostname, "/etc/resolv.conf": in.ResolvConf} {
		if _, err := os.Stat(path); err != nil { // it was never started
			continue
		}
		tree, err := CloneTree(path, false)
		if err == nil {
			err = s.add(target, tree, unix.MountAttr{}, 0)
		}
		if err == nil {
			err = s.show(tree)
		}
		if err != nil {
			return err
		}
	}
	s.user = "view-" + idgen.New()[:16]
	user := slices.Clone(s.r.Mounted())
	slices.SortStableFunc(user, func(a, b spec.Mount) int { return len(a.Destination) - len(b.Destination) })
	for i := range user {
		m := &user[i]
		if m.Type == mount.TypeTmpfs {
			continue
		}
		tree, err := s.tree(ctx, m)
		if err != nil {
			return err
		}
		attr, flags := unix.MountAttr{}, uint(0)
		if m.ReadOnly {
			attr.Attr_set = unix.MOUNT_ATTR_RDONLY
			if m.Bind == nil || !m.Bind.ReadOnlyNonRecursive {
				flags = unix.AT_RECURSIVE
			}
		}
		if err := s.add(m.Destination, tree, attr, flags); err != nil {
			return err
		}
		if m.Type == mount.TypeVolume || m.IDMap != nil {
			if err := s.show(tree); err != nil {
				return err
			}
		}
	}
	return nil
}

// add keeps a mount, which nobody follows and which follows nobody.
func (s *Sources) add(target string, tree *os.File, attr unix.MountAttr, flags uint) error {
	s.List = append(s.List, view.Bind{Target: target, Tree: tree})
	fd := int(tree.Fd())
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	if err == nil && attr.Attr_set != 0 {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &attr)
	}
	return os.NewSyscallError("mount_setattr", err)
}

// show has a mount show its owners as the container's, as a run does.
func (s *Sources) show(tree *os.File) error {
	if s.users == nil {
		return nil
	}
	return userns.MapOwners(int(tree.Fd()), s.users.FD, 0)
}

func (s *Sources) tree(ctx context.Context, m *spec.Mount) (*os.File, error) {
	switch m.Type {
	case mount.TypeVolume:
		path, err := s.maker.Reach(ctx, s.r, m, s.user)
		if err != nil {
			return nil, err
		}
		s.volumes = append(s.volumes, m.Name)
		if m.Subpath() != "" {
			return CloneBelow(path, m.Subpath())
		}
		return CloneTree(path, true)
	case mount.TypeImage:
		tree, err := s.maker.Image(ctx, s.r.MountedImages[m.Destination], s.users)
		if err != nil || m.Subpath() == "" {
			return tree, err
		}
		defer tree.Close()
		return supervise.CloneBelow(int(tree.Fd()), m.Subpath())
	}
	if err := PrepareSource(m); err != nil {
		return nil, err
	}
	return CloneTree(m.Source, m.Bind == nil || !m.Bind.NonRecursive)
}
