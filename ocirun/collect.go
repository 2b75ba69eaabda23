package ocirun

import (
	"strings"

	"github.com/tarehq/tare/ocirun/cgroup"
)

// Collect removes the control groups of a container whose creator died, and
// kills what still runs in them. The bundle's config.json says where they are.
func Collect(bundle, id string) error {
	spec, err := ReadSpec(bundle)
	if err != nil {
		return err
	}
	if err := check(spec); err != nil {
		return err
	}
	path := groupPath(spec, id)
	if slice, _, _ := strings.Cut(path, ":"); strings.Count(path, ":") == 2 && strings.HasSuffix(slice, ".slice") {
		if path, err = cgroup.Systemd(path, id, false); err != nil {
			return err
		}
	}
	group, err := cgroup.At(path)
	if err != nil {
		return err
	}
	return group.Delete()
}
