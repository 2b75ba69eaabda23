// Package record keeps what is known of each container: what was asked for, which is
// verbatim Docker's, what was resolved when it was made, and what has happened to it
// since. The store hands out copies, and writes what is changed.
package record

import (
	"time"

	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/container/confine"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/network"
)

// Record is what is known of one container. The store hands out copies; what
// its pointers and slices lead to is never changed after create, so a copy is
// shallow.
type Record struct {
	Spec
	Progress
}

// Spec is the stored request: Docker's config verbatim, and what create
// resolved. It changes only by rename and update.
type Spec struct {
	ID            string
	Name          string // without Docker's leading slash
	Created       time.Time
	Config        *wire.Config
	HostConfig    *wire.HostConfig
	Networks      map[string]*wirenet.EndpointSettings // as requested, by name; nil is the network of the mode alone
	Links         []Link                               `json:",omitempty"` // of HostConfig.Links, which may name others by now
	Image         Image
	Path          string           // the program
	Args          []string         // and its arguments
	Runtime       string           // name of the OCI runtime
	Labels        *confine.Labels  `json:",omitempty"` // of SELinux; nil where it was not there
	Mounts        []spec.Mount     `json:",omitempty"` // what -v, --mount, --volumes-from and the image came to
	MountedImages map[string]Image `json:",omitempty"` // by place
	Users         *userns.Map      `json:",omitempty"` // what its IDs are outside; nil for the host's
	UsersOf       string           `json:",omitempty"` // ID of the container that it shares a user namespace with
	Boot          string           // the boot that it was created in, random(4) boot_id
}

// Image is the image as it was when the container was created; the name may
// point elsewhere by now.
type Image struct {
	ID       digest.Digest      // digest of the manifest or index that the name pointed to
	Manifest ocispec.Descriptor // the manifest of the platform that was chosen
	ChainID  digest.Digest      // of the unpacked layers
	OS       string
}

// Progress is what happened to the container since it was created.
type Progress struct {
	State           State
	Pid             int `json:",omitempty"` // of init; 0 unless running
	StartedAt       time.Time
	FinishedAt      time.Time
	ExitCode        int
	Error           string            `json:",omitempty"`
	OOMKilled       bool              `json:",omitempty"`
	RestartCount    int               `json:",omitempty"`
	ManuallyStopped bool              `json:",omitempty"` // by stop or kill: the restart policy rests
	Sandbox         *network.Sandbox  `json:"-"`          // while running with interfaces of its own; kept in the bundle
	NetworkIDs      map[string]string `json:",omitempty"` // of the user's networks that the last start found, by name; replaced, never changed
	Health          *wire.Health      `json:",omitempty"` // nil without a check; while running newer in the bundle; replaced, never changed
}

// AutoRemove tells whether the container goes when its process ends.
func (r *Record) AutoRemove() bool { return r.HostConfig.AutoRemove }
