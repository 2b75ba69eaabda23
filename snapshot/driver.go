package snapshot

import (
	"context"
	"io"
	"strings"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/fault"
)

// The drivers, as the store writes their names down.
const (
	Overlay = "overlay" // layers apart, stacked by the kernel
	Btrfs   = "btrfs"   // subvolumes and snapshots of them
	VFS     = "vfs"     // copies of whole trees
)

// driver is what differs between the ways to keep trees. A layer lies in a
// directory of its own, whose entry "fs" is the tree: the layer's alone, or all
// of what it makes with those below it. A driver is called without locks, for
// different directories at the same time.
type driver interface {
	// check refuses a file system that is none for the driver; fresh says that
	// the store is new.
	check(fresh bool) error
	// start makes ready what the driver has of its own in the store, when the
	// leftovers of the last time are out of the way. close ends its work.
	start() error
	close()

	// independent tells whether begin and apply need no layer below.
	independent() bool
	// begin makes dir/fs for a layer, on the tree below ("" for none).
	begin(dir, below string) error
	// apply extracts a layer's archive in dir; over says that it lies on others.
	apply(ctx context.Context, dir string, r io.Reader, over bool) (archive.Stats, error)
	// settle finishes the layer in dir now that the trees below it are there,
	// topmost first.
	settle(dir string, stats archive.Stats, below []string) error

	// writable makes a place for a container on the layer, and returns the
	// directory for the caller to rename.
	writable(top *layer) (string, error)
	// mount says how a container's directory, "" for none, is mounted with the
	// trees below it, topmost first.
	mount(dir string, below []string) Mount

	// remove deletes a layer's, a container's or an unfinished directory, as far
	// as it is there.
	remove(dir string) error
	// status are the rows that tell about the driver, without its name.
	status() [][2]string
}

// ParseDriver gives the name of a driver that goes by several: overlay is
// overlay2 and overlayfs too, as for Docker.
func ParseDriver(name string) (string, error) {
	switch strings.ToLower(name) {
	case Overlay, "overlay2", "overlayfs":
		return Overlay, nil
	case Btrfs, VFS:
		return strings.ToLower(name), nil
	}
	return "", fault.New(fault.Invalid, "unknown storage driver %q: want overlay, btrfs or vfs", name)
}

func newDriver(s *Store, name string) driver {
	switch name {
	case Btrfs:
		return whole{s, btrfs{s}}
	case VFS:
		return whole{s, &vfs{store: s}}
	}
	return &overlay{store: s}
}

// Driver is the driver's name for Docker's clients: overlayfs, btrfs or vfs.
func (s *Store) Driver() string {
	if s.name == Overlay {
		return "overlayfs"
	}
	return s.name
}

// DriverStatus are the rows that docker info shows of the driver. The first
// tells clients that images are named by their manifests' digests.
func (s *Store) DriverStatus() [][2]string {
	return append([][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}, s.driver.status()...)
}

// Independent tells whether layers may be begun and applied before those below
// them are committed, many at once. Otherwise Begin needs the parent.
func (s *Store) Independent() bool { return s.driver.independent() }
