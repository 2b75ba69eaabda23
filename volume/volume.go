// Package volume keeps data that outlives containers.
//
// It owns <data-root>/volumes:
//
//	NAME/volume.json   what is kept of a volume: Record
//	NAME/_data/        its content, Docker's Mountpoint; a mount point if the
//	                   options name something to mount
//	NAME/fresh         it is a copy that is not on disk yet
//	NAME/copy-…/       what of an image is being copied to it
//	NAME/copied/       the same, whole, on its way into _data
//	NAME/use-ID        a plugin was asked to mount it for this container
//	.new-…/            a volume that is being made; it has no name yet
//	.gone-…/           one that was removed, and is being deleted
//	.frozen-…          the containers that stand still while a volume is copied
//
// A volume is there from the rename that gives it its name until the rename that
// takes it away. A plugin's volume has a record here and no data.
//
// Who uses a volume is not counted here: the containers know, whether they run or
// not (SetUsers), and what is being made holds what it will use (Hold).
package volume

import (
	"regexp"
	"time"

	wire "github.com/moby/moby/api/types/volume"

	"github.com/tarehq/tare/fault"
)

// Local is the driver of volumes that are directories, or mounts, of this host.
const Local = "local"

// AnonymousLabel marks, as Docker does, a volume that nobody gave a name.
const AnonymousLabel = "com.docker.volume.anonymous"

// Record is what is kept of a volume. It never changes, so copies share the maps.
type Record struct {
	Name    string
	Driver  string            // Local or a plugin's name
	Options map[string]string `json:",omitempty"` // of the driver
	Labels  map[string]string `json:",omitempty"`
	Created time.Time

	Snapshot bool   `json:",omitempty"` // nobody writes to it: containers get it read-only
	Was      string `json:",omitempty"` // its name before the last rename, see load
}

// Anonymous tells whether nobody gave the volume its name.
func (r *Record) Anonymous() bool {
	_, is := r.Labels[AnonymousLabel]
	return is
}

// namePattern is what a volume of the local driver can be called. No name starts
// with a dot, as what is no volume yet or any more does.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckName refuses what no volume of the local driver can be called.
func CheckName(name string) error {
	switch {
	case len(name) == 1:
		return fault.New(fault.Invalid, "volume name is too short, names should be at least two alphanumeric characters")
	case len(name) > 255:
		return fault.New(fault.Invalid, "the volume name %q… is too long, names have at most 255 characters", name[:32])
	case !namePattern.MatchString(name):
		return fault.New(fault.Invalid, "%q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
	}
	return nil
}

// wire shows a volume as the API does, with what its plugin told of it.
func (s *Service) wire(r Record, e *external) wire.Volume {
	v := wire.Volume{
		Name: r.Name, Driver: r.Driver, Scope: "local", CreatedAt: r.Created.Format(time.RFC3339),
		Labels: r.Labels, Options: r.Options, // which never change
	}
	if r.Driver == Local {
		v.Mountpoint = s.data(r.Name)
	}
	if r.Snapshot {
		v.Status = map[string]any{"Snapshot": true}
	}
	if e != nil {
		v.Mountpoint, v.Scope, v.Status = e.Mountpoint, e.scope, e.Status
		if !e.CreatedAt.IsZero() {
			v.CreatedAt = e.CreatedAt.Format(time.RFC3339)
		}
	}
	return v
}
