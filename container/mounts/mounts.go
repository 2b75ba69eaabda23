// Package mounts is what a container has mounted beside its root: it finds and makes
// what -v, --mount, --volumes-from and the image ask for, and gives it up.
package mounts

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/container/view"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/internal/overlayfs"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/supervise"
	"github.com/tarehq/tare/volume"
)

// Images are those that can be mounted.
type Images interface {
	ResolvePlatform(ctx context.Context, ref, platform string) (catalog.Image, error)
	Unpacked(ctx context.Context, img catalog.Image) (digest.Digest, error)
	UnpackManifest(ctx context.Context, manifest ocispec.Descriptor) (digest.Digest, error)
}

// Layers are what images and containers lie in.
type Layers interface {
	ReadOnly(chain digest.Digest) (snapshot.Mount, error)
	View(containerID string) (*snapshot.View, error)
}

// Maker makes what is mounted in containers. It is safe for concurrent use.
type Maker struct {
	Store   *record.Store
	Volumes *volume.Service
	Images  Images
	Layers  Layers
	Events  *event.Log
}

// UsedVolumes tells which containers use each volume. It is a volume.Users.
func (k *Maker) UsedVolumes() map[string][]string {
	return UsedVolumes(k.Store.All())
}

// UsedVolumes tells which of these containers use each volume.
func UsedVolumes(records []record.Record) map[string][]string {
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

// Tell tells that a run begins or has ceased to use its volumes.
func (k *Maker) Tell(r *record.Record, action events.Action) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		attrs := map[string]string{"driver": m.Driver, "container": r.ID}
		if action == events.ActionMount {
			attrs["destination"], attrs["read/write"], attrs["propagation"] = m.Destination, strconv.FormatBool(!m.ReadOnly), string(m.Propagation)
		}
		k.Events.Publish(events.VolumeEventType, action, events.Actor{ID: m.Name, Attributes: attrs})
	}
}

// Unmount lets go of a run's volumes.
func (k *Maker) Unmount(ctx context.Context, r *record.Record) error {
	var errs []error
	for _, m := range r.Mounts {
		if m.Type == mount.TypeVolume {
			errs = append(errs, k.Volumes.Unmount(ctx, m.Name, r.ID))
		}
	}
	return errors.Join(errs...)
}

// Remove removes the volumes without a name of their own that a removed
// container used and nobody else does.
func (k *Maker) Remove(ctx context.Context, r *record.Record) error {
	var errs []error
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume || !m.Anonymous {
			continue
		}
		if err := k.Volumes.Remove(ctx, m.Name, true); !errors.Is(err, fault.Conflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Reach mounts a volume for a user. After power loss a container that was
// created in its last moments may be there without the volume of its own, which has
// nothing in it then.
func (k *Maker) Reach(ctx context.Context, r *record.Record, m *spec.Mount, user string) (string, error) {
	path, err := k.Volumes.Mount(ctx, m.Name, user)
	if !errors.Is(err, fault.NotFound) || !m.Anonymous || r.State != record.Created || !r.StartedAt.IsZero() {
		return path, ForCreate(err)
	}
	req := volume.CreateRequest{Name: m.Name, Driver: m.Driver, Labels: map[string]string{volume.AnonymousLabel: ""}, Volatile: r.AutoRemove()}
	if _, err := k.Volumes.Create(ctx, req); err != nil {
		return "", err
	}
	if !m.NoCopy {
		view, err := k.Layers.View(r.ID)
		if err != nil {
			return "", err
		}
		defer view.Close()
		if err := k.populate(ctx, m, r.ID, view.Root(), nil); err != nil {
			return "", err
		}
	}
	return k.Volumes.Mount(ctx, m.Name, user)
}

// PrepareSource makes the missing source directory of -v, as Docker does, and
// refuses a --mount whose source is not there.
func PrepareSource(m *spec.Mount) error {
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return fault.New(fault.Invalid, "cannot bind %s: %w", m.Source, err)
	case m.Strict:
		return NoSource(m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fault.New(fault.Invalid, "error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

// CloneTree makes a detached mount of what lies at a path.
func CloneTree(path string, recursive bool) (*os.File, error) {
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

// CloneBelow does so of a part of a volume.
func CloneBelow(path, subpath string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return supervise.CloneBelow(int(dir.Fd()), subpath)
}

// Image mounts what an image's layers make, to be read.
func (k *Maker) Image(ctx context.Context, img record.Image, users *overlayfs.Users) (*os.File, error) {
	m, err := k.Layers.ReadOnly(img.ChainID)
	if errors.Is(err, fault.NotFound) { // power loss, or the image was removed by force
		if _, err = k.Images.UnpackManifest(ctx, img.Manifest); err == nil {
			m, err = k.Layers.ReadOnly(img.ChainID)
		}
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "the image %s that is to be mounted cannot be used: %w", img.ID, err)
	}
	return view.ReadOnly(m, users)
}

// NoSource refuses a --mount whose source is not there.
func NoSource(source string) error {
	return fault.New(fault.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", source)
}
