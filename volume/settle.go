package volume

import (
	"os"
	"path/filepath"

	"github.com/tarehq/tare/internal/treecopy"
)

// freshName marks a volume that was copied from something whole and is not on disk
// yet, only in the kernel's memory: a daemon's end does not harm it, power loss
// does. Nobody waits for the disk, as with cp(1) and tar(1). It names the boot.
const freshName = "fresh"

// bootID tells one boot from the next, random(4).
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(id)
}

// mark makes the mark in a volume's directory that is being made.
func mark(at *os.File) error {
	return os.WriteFile(filepath.Join(at.Name(), freshName), []byte(bootID()), 0o600)
}

// settle has a volume written to disk and takes the mark away.
func (s *Service) settle(dir string) {
	at, err := os.Open(dir) // it may get another name
	if err != nil {
		return
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		at.Close()
		return
	}
	s.background.Go(func() {
		defer at.Close()
		defer root.Close()
		err := treecopy.Sync(at)
		if err == nil {
			err = root.Remove(freshName)
		}
		if err != nil {
			s.log.Warn("a volume that was copied may not be on disk yet", "dir", dir, "err", err)
		}
	})
}

// torn tells whether power was lost before a volume was on disk, and goes on with
// what a daemon of this boot has left.
func (s *Service) torn(dir string) bool {
	boot, err := os.ReadFile(filepath.Join(dir, freshName))
	if err != nil {
		return false
	}
	if string(boot) != bootID() {
		return true
	}
	s.settle(dir)
	return false
}
