package testutil

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Share has what several test processes need made once: by one of them, while the
// others wait. make is given another path beside it with the same ending, and
// what it leaves there gets its name when it is whole.
func Share(path string, make func(path string) error) error {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	half := filepath.Join(filepath.Dir(path), "half-"+filepath.Base(path))
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if err := make(half); err != nil {
		return errors.Join(err, os.RemoveAll(half))
	}
	return os.Rename(half, path)
}
