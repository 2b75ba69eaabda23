// Package aside takes directories out of the way whose deletion may take a while: it is
// one rename, after which the name is free and what was there belongs to nobody.
package aside

import (
	"errors"
	"io/fs"
	"os"
)

// Suffix ends the name of a directory that was moved.
const Suffix = "-removing"

// Move renames a directory that nobody needs any more, "" if there is none
// or nothing is left to delete. What a dying process does not delete its next one
// collects.
func Move(dir string) (away string, err error) {
	away = dir + Suffix
	switch err := os.Rename(dir, away); {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil: // the last one is not gone yet
		if err := os.RemoveAll(away); err != nil {
			return "", err
		}
		return away, os.Rename(dir, away)
	}
	return away, nil
}
