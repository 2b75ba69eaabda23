package mounts

import (
	"context"
	"errors"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
	"github.com/tarehq/tare/internal/undo"
	"github.com/tarehq/tare/snapshot"
	"github.com/tarehq/tare/volume"
)

// maxVolumes is how many volumes an image may declare.
const maxVolumes = 1000

// Furnishing finds and makes what is mounted in a container that is being made, in
// Docker's order: what other containers have (--volumes-from), -v, --mount, and a
// volume of its own wherever the image or the user wants one and nothing is mounted
// yet.
//
// Until the container is on record it holds its volumes, and those that are its
// own have no name: a crash leaves none that nobody knows of.
type Furnishing struct {
	*Maker
	r      *record.Record
	drafts []*volume.Draft
}

// Furnish fills in the mounts of a record that is being made.
func (k *Maker) Furnish(ctx context.Context, r *record.Record, back *undo.Stack) (*Furnishing, error) {
	f := &Furnishing{Maker: k, r: r}
	h := r.HostConfig
	wanted, err := spec.Wanted(h)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, m := range wanted {
		taken[m.Destination] = true
	}
	inherited, err := f.inherited(h.VolumesFrom, taken)
	if err != nil {
		return nil, err
	}
	own, err := ownVolumes(r.Config.Volumes, h, taken)
	if err != nil || len(inherited)+len(wanted)+len(own) == 0 {
		return f, err
	}
	back.Push(func() error { k.Volumes.Release(r.ID); return nil })
	r.Mounts = slices.Concat(inherited, wanted, own)
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if err := f.make(ctx, m, i < len(inherited), back); err != nil {
			return nil, ForCreate(err)
		}
		asked := i >= len(inherited) && i < len(inherited)+len(wanted)
		if asked && m.Mode == "" && m.Driver == volume.Local {
			m.Mode = "z" // as Docker shows a volume that was asked for
		}
	}
	return f, f.populateAll(ctx)
}

// ForCreate makes nothing that is missing fault.NotFound: by that, clients know a
// missing image, which they pull.
func ForCreate(err error) error {
	if errors.Is(err, fault.NotFound) {
		return fault.New(fault.Invalid, "%w", err)
	}
	return err
}

// inherited are the mounts of other containers at places that are free, of two at
// one place the later.
func (f *Furnishing) inherited(from []string, taken map[string]bool) ([]spec.Mount, error) {
	var list []spec.Mount
	at := map[string]int{}
	for _, text := range from {
		name, readOnly, err := spec.ParseVolumesFrom(text)
		if err != nil {
			return nil, err
		}
		other, err := f.Store.Find(name)
		if err != nil {
			return nil, ForCreate(err)
		}
		for _, m := range other.Mounted() {
			if taken[m.Destination] {
				continue
			}
			m.ReadOnly, m.NoCopy, m.Mode = m.ReadOnly || readOnly, true, ""
			if i, twice := at[m.Destination]; twice {
				list[i] = m
				continue
			}
			if img, is := other.MountedImages[m.Destination]; is {
				f.r.MountImage(m.Destination, img)
			}
			at[m.Destination] = len(list)
			list = append(list, m)
		}
	}
	for place := range at {
		taken[place] = true
	}
	return list, nil
}

// ownVolumes are the places that want a volume of the container's own.
func ownVolumes(places map[string]struct{}, h *wire.HostConfig, taken map[string]bool) ([]spec.Mount, error) {
	if len(places) > maxVolumes {
		return nil, fault.New(fault.Invalid, "the image and the request declare %d volumes, more than %d", len(places), maxVolumes)
	}
	var list []spec.Mount
	for _, place := range slices.Sorted(maps.Keys(places)) {
		m := spec.Mount{Type: mount.TypeVolume, Destination: path.Clean("/" + place), Driver: h.VolumeDriver}
		if m.Destination == "/" || strings.ContainsRune(place, 0) {
			return nil, fault.New(fault.Invalid, "invalid volume %q: it cannot be mounted there", place)
		}
		if _, tmpfs := h.Tmpfs[m.Destination]; tmpfs || taken[m.Destination] {
			continue
		}
		taken[m.Destination] = true
		list = append(list, m)
	}
	return list, nil
}

// make makes one mount's volume, or finds it or its image.
func (f *Furnishing) make(ctx context.Context, m *spec.Mount, inherited bool, back *undo.Stack) error {
	switch m.Type {
	case mount.TypeVolume:
		return f.makeVolume(ctx, m, inherited, back)
	case mount.TypeImage:
		if inherited {
			return nil
		}
		return f.findImage(ctx, m)
	}
	return nil
}

func (f *Furnishing) makeVolume(ctx context.Context, m *spec.Mount, inherited bool, back *undo.Stack) error {
	volumes := f.Volumes
	req := volume.CreateRequest{Name: m.Name, Driver: m.Driver, Holder: f.r.ID, Existing: inherited, Volatile: f.r.AutoRemove()}
	if o := m.Volume; o != nil && !inherited {
		req.Labels = o.Labels
		if o.DriverConfig != nil {
			req.Options = o.DriverConfig.Options
		}
	}
	ofName := m.Name != "" && !m.Anonymous
	m.Anonymous = !ofName
	var r volume.Record
	if m.Name == "" && (m.Driver == "" || m.Driver == volume.Local) && len(req.Options) == 0 {
		d, err := volumes.Draft(req)
		if err != nil {
			return err
		}
		back.Push(d.Discard)
		f.drafts = append(f.drafts, d)
		r = d.Record
	} else {
		made := false
		var err error
		if r, made, err = volumes.Hold(ctx, req); err != nil {
			return err
		}
		if made {
			// Another container may have begun to use it.
			back.Push(func() error {
				volumes.Release(f.r.ID)
				if err := volumes.Remove(context.WithoutCancel(ctx), r.Name, false); !errors.Is(err, fault.Conflict) {
					return err
				}
				return nil
			})
		}
	}
	m.Name, m.Driver, m.ReadOnly = r.Name, r.Driver, m.ReadOnly || r.Snapshot
	if r.Driver != volume.Local {
		return nil
	}
	m.Source = volumes.Path(r.Name)
	return nil
}

// findImage finds the image that is to be mounted.
func (f *Furnishing) findImage(ctx context.Context, m *spec.Mount) error {
	images := f.Images
	img, err := images.ResolvePlatform(ctx, m.Name, "")
	if err != nil {
		return err
	}
	chain, err := images.Unpacked(ctx, img)
	if err != nil {
		return err
	}
	m.Source = img.ID.String()
	f.r.MountImage(m.Destination, record.Image{ID: img.ID, Manifest: img.Manifest, ChainID: chain, OS: img.Platform.OS})
	return nil
}

// populateAll copies to each volume that is empty what it will hide of the image.
func (f *Furnishing) populateAll(ctx context.Context) error {
	var view *snapshot.View
	defer func() {
		if view != nil {
			view.Close()
		}
	}()
	for i := range f.r.Mounts {
		m := &f.r.Mounts[i]
		if m.Type != mount.TypeVolume || m.NoCopy || m.Subpath() != "" {
			continue
		}
		if view == nil {
			var err error
			if view, err = f.Layers.View(f.r.ID); err != nil {
				return err
			}
		}
		var draft *volume.Draft
		if i := slices.IndexFunc(f.drafts, func(d *volume.Draft) bool { return d.Name == m.Name }); i >= 0 {
			draft = f.drafts[i]
		}
		if err := f.populate(ctx, m, f.r.ID, view.Root(), draft); err != nil {
			return err
		}
	}
	return nil
}

// populate copies to a volume what it will hide of the image at root. It is a draft, or
// held by the holder.
func (k *Maker) populate(ctx context.Context, m *spec.Mount, holder string, root *os.File, draft *volume.Draft) error {
	dir, err := openHidden(root, m.Destination)
	if dir == nil {
		return err
	}
	defer dir.Close()
	if draft != nil {
		err = draft.Fill(ctx, dir)
	} else {
		err = k.Volumes.Populate(ctx, m.Name, holder, dir)
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "failed to populate volume %s: %w", m.Name, err)
	}
	return nil
}

// openHidden opens what of the image a volume hides, nil if there is nothing. The
// image's links stay inside of it.
func openHidden(root *os.File, place string) (*os.File, error) {
	fd, err := openat.Open(int(root.Fd()), strings.TrimPrefix(place, "/"), unix.O_RDONLY|unix.O_DIRECTORY, openat.InRoot)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.ENOTDIR):
		return nil, fault.New(fault.Invalid, "cannot mount volume over existing file, file exists %s", place)
	case err != nil:
		return nil, fault.New(fault.Invalid, "cannot look at %s in the image: %w", place, err)
	}
	return os.NewFile(uintptr(fd), place), nil
}

// Publish names the container's own volumes, when it is on record.
func (f *Furnishing) Publish() error {
	if f == nil {
		return nil
	}
	for _, d := range f.drafts {
		if err := d.Publish(); err != nil {
			return err
		}
	}
	if len(f.r.Mounts) > 0 {
		f.Volumes.Release(f.r.ID)
	}
	return nil
}
