// Package image is the noun: what a user imports, loads, names, looks at,
// saves and removes, over the mechanisms content (blobs by digest), snapshot
// (unpacked layers) and archive (tar).
//
// An image's identity is the digest of the manifest or index that its name
// points to. All platforms, attestations and annotations of an index are kept
// as they came; which of them runs here is chosen when it is used.
//
// A Service is what is asked of images that are here; Transfers pull and push them
// (pull.go, push.go, over packages download and unpack); Making makes them of trees, for
// builds (make.go). All read the catalog, which knows what is in an image (member.go).
package image

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/image/platform"
)

// Image is one image as a container needs it: resolved to one platform.
type Image struct {
	// ID is the digest of the manifest or index that the name points to.
	ID digest.Digest
	// Name is the canonical name that it was found by, such as
	// docker.io/library/busybox:latest; "" when it was found by its ID.
	Name string
	// Manifest describes the chosen platform's manifest; its digest equals
	// ID unless ID is an index.
	Manifest ocispec.Descriptor
	Config   dockerspec.DockerOCIImage
	// ChainID names the topmost unpacked layer; "" for an image of no layers.
	ChainID  digest.Digest
	DiffIDs  []digest.Digest
	Platform ocispec.Platform

	layers []ocispec.Descriptor
}

// ImportOptions say how an imported tree becomes an image.
type ImportOptions struct {
	Reference string    // name to give, "" for none; a tag is added when it lacks
	Changes   []string  // Dockerfile instructions that set the config
	Message   string    // comment of the one history entry
	Platform  string    // "os/arch[/variant]"; "" for what the programs in the tree are for, or this machine's
	Epoch     time.Time // of the image, unless zero (SOURCE_DATE_EPOCH); the files are as they come
}

// RemoveOptions as in DELETE /images/{name}.
type RemoveOptions struct {
	Force   bool
	NoPrune bool // the images that it was made of stay, also those without a name
	// Platforms, unless empty, are all that goes: their content, while the image
	// keeps its names and the other platforms.
	Platforms []string
}

// ListOptions as in GET /images/json. Filters are Docker's: reference, label,
// label!, before, since, dangling, until.
type ListOptions struct {
	All        bool // also those that are here for what was made of them alone
	Manifests  bool
	SharedSize bool
	Filters    map[string]map[string]bool
}

// Brief is what a list of names shows of an image; it is tared's own.
type Brief struct {
	Containers  int64
	ContentSize int64    // bytes of all platforms as they travel, of what is here
	Created     int64    // seconds since 1970
	ID          string   `json:"Id"`
	RepoDigests []string // in repositories in which it has no tag
	RepoTags    []string
	SharedSize  int64 // -1: not counted
	Size        int64 // bytes on the disk
}

// Publisher is told what has happened to images. The action is Docker's word:
// import, load, save, tag, untag, delete. attrs belongs to the callee.
type Publisher interface {
	Publish(action, id string, attrs map[string]string)
}

// Use is one container that was made from an image.
type Use struct {
	Container string // full ID
	Running   bool
}

// InUse tells which containers were made from which image.
type InUse func() map[digest.Digest][]Use

// Foreign tells, when the image is of a platform that this machine is not known
// to run, how the two are written.
func (i Image) Foreign() (image, machine string, foreign bool) {
	return platform.Format(i.Platform), platform.Format(platform.Host()), platform.Foreign(i.Platform)
}
