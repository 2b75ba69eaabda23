package snapshot

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// formatFile holds the format. A store without it is of version 0: an overlay's,
// with the layout of version 1.
const formatFile = "store.json"

// format says who can read a store.
type format struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`
}

// migrations lead from each version of the layout to the next; the present one
// is their number. Each may be cut off at any point and be run again.
var migrations = []func(root string) error{
	func(string) error { return nil }, // 1: store.json
}

// readFormat tells the store's format; fresh says that there is no store yet.
func readFormat(root string) (f format, fresh bool, err error) {
	data, err := os.ReadFile(filepath.Join(root, formatFile))
	if errors.Is(err, os.ErrNotExist) {
		_, err := os.Lstat(filepath.Join(root, "layers"))
		if errors.Is(err, os.ErrNotExist) {
			return format{Version: len(migrations)}, true, nil
		}
		return format{Driver: Overlay}, false, err
	}
	if err != nil {
		return format{}, false, err
	}
	if err := json.Unmarshal(data, &f); err != nil || f.Version < 1 || f.Driver == "" {
		return format{}, false, fault.New(fault.Invalid, "%s does not tell the format of the layers: is %s the right directory?", filepath.Join(root, formatFile), root)
	}
	return f, false, nil
}

// checkFormat refuses a store that is not this driver's or this program's, and
// brings an older one up to date.
func (s *Store) checkFormat() (fresh bool, err error) {
	f, fresh, err := readFormat(s.root)
	if err != nil || fresh {
		return fresh, err
	}
	if f.Version > len(migrations) {
		return false, fault.New(fault.Invalid, "the layers in %s are of format %d and this program knows formats up to %d: start the newer program again", s.root, f.Version, len(migrations))
	}
	if f.Driver != s.name {
		return false, fault.New(fault.Invalid, "the layers in %s were made by the storage driver %s: go on with --storage-driver=%s, or choose another --data-root for %s", s.root, f.Driver, f.Driver, s.name)
	}
	if f.Version == len(migrations) {
		return false, nil
	}
	for _, migrate := range migrations[f.Version:] {
		if err := migrate(s.root); err != nil {
			return false, err
		}
	}
	return false, s.writeFormat()
}

func (s *Store) writeFormat() error {
	data, err := json.Marshal(format{Version: len(migrations), Driver: s.name})
	if err != nil {
		return err
	}
	return atomicfile.WriteSync(filepath.Join(s.root, formatFile), append(data, '\n'), 0o600)
}

// Choose names the driver for the store at root when nobody has chosen one: the
// store's own, or for a new one overlay where the file system can hold it. Else
// it is vfs, and because says why not overlay.
func Choose(root string) (driver string, because, err error) {
	f, fresh, err := readFormat(root)
	if err != nil || !fresh {
		return f.Driver, nil, err
	}
	if err := overlayWorks(root); err != nil {
		return VFS, err, nil
	}
	return Overlay, nil, nil
}
