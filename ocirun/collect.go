package ocirun

import (
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
	group, err := cgroup.At(groupPath(spec, id))
	if err != nil {
		return err
	}
	return group.Delete()
}
