package snapshot

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	subvolume "github.com/tarehq/tare/internal/btrfs"
)

// btrfs makes trees that are subvolumes, and like another by a snapshot of it.
type btrfs struct{ store *Store }

func (b btrfs) check() error {
	if kind := fileSystem(b.store.root); kind != Btrfs {
		return fault.New(fault.Invalid, "%s is not on a btrfs file system: put the data root on one, or choose the storage driver overlay", b.store.root)
	}
	return nil
}

func (b btrfs) status() [][2]string { return [][2]string{{"Backing Filesystem", Btrfs}} }

// keep has nothing to do: a snapshot is made by a commit of the file system.
func (b btrfs) keep(string) error { return nil }

func (b btrfs) create(path string) error {
	return in(filepath.Dir(path), func(dir int) error { return subvolume.Create(dir, filepath.Base(path)) })
}

func (b btrfs) clone(path, from string) error {
	return in(filepath.Dir(path), func(dir int) error {
		return in(from, func(source int) error { return subvolume.Snapshot(dir, filepath.Base(path), source) })
	})
}

func (b btrfs) remove(path string) error {
	return in(filepath.Dir(path), func(dir int) error { return subvolume.Remove(dir, filepath.Base(path)) })
}

func (b btrfs) canLimit() error { return nil }

// limit bounds what the subvolume shares with no other.
func (b btrfs) limit(dir string, bytes uint64) error {
	return in(filepath.Join(dir, "fs"), func(dir int) error { return subvolume.Limit(dir, subvolume.Exclusive, bytes) })
}

// in calls f with the open directory.
func in(path string, f func(dir int) error) error {
	d, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()))
}
