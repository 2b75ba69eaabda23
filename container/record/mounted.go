package record

import (
	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/spec"
)

// Mounted are what -v, --mount, --volumes-from and the image have mounted. Records
// of the time when that was in the request alone have it there.
func (r *Spec) Mounted() []spec.Mount {
	if len(r.Mounts) == 0 && len(r.HostConfig.Binds)+len(r.HostConfig.Mounts) > 0 {
		wanted, err := spec.Wanted(r.HostConfig)
		if err != nil { // of an older daemon that took what is refused today
			return nil
		}
		return wanted
	}
	return r.Mounts
}

// MountImage has the container find an image at a place.
func (r *Spec) MountImage(place string, img Image) {
	if r.MountedImages == nil {
		r.MountedImages = map[string]Image{}
	}
	r.MountedImages[place] = img
}

// MountPoints shows what is mounted; a tmpfs of --tmpfs is shown in HostConfig alone,
// as Docker does.
func (r *Spec) MountPoints() []wire.MountPoint {
	points := []wire.MountPoint{}
	for _, m := range r.Mounted() {
		points = append(points, m.Describe())
	}
	return points
}
