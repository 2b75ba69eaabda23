package content

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
)

// formatFile holds the version of what this package adds to an OCI layout: the
// annotations of index.json and the directories beside blobs. A store without
// it is of version 0, a new one or an early daemon's.
const formatFile = "format.json"

type format struct {
	Version int `json:"version"`
}

// migrations lead from each version to the next; the present one is their
// number. Each may be cut off at any point and be run again.
var migrations = []func(root string) error{
	func(string) error { return nil }, // 1: format.json, partial/
}

// migrate brings an older store up to date and refuses a newer one.
func migrate(root string) error {
	path := filepath.Join(root, formatFile)
	var f format
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if err := json.Unmarshal(data, &f); err != nil || f.Version < 0 {
			return fault.New(fault.Invalid, "%s is damaged: write {\"version\":%d} into it if no newer program has used this store", path, len(migrations))
		}
	}
	if f.Version > len(migrations) {
		return fault.New(fault.Invalid, "the image store %s is of format %d and this program knows formats up to %d: start the newer program again", root, f.Version, len(migrations))
	}
	if f.Version == len(migrations) {
		return nil
	}
	for _, step := range migrations[f.Version:] {
		if err := step(root); err != nil {
			return err
		}
	}
	data, err = json.Marshal(format{len(migrations)})
	if err != nil {
		return err
	}
	return atomicfile.WriteSync(path, append(data, '\n'), 0o644)
}
