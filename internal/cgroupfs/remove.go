package cgroupfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// Remove removes the group of a directory with those below it; unix.EBUSY while
// one of them has processes. One that is gone already is no error.
func Remove(dir string) error {
	err := unix.Rmdir(dir)
	if err == unix.EBUSY {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if !e.IsDir() {
				continue
			}
			if err := Remove(dir + "/" + e.Name()); err != nil {
				return err
			}
		}
		err = unix.Rmdir(dir)
	}
	if err == unix.ENOENT {
		return nil
	}
	return err
}
