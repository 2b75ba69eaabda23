package snapshot

import (
	"errors"
	"io/fs"
	"os"
)

// baseDirs and baseFiles are what every container's root must have to be
// mounted on. They lie below all layers of the image, which hides whichever it
// has itself: what is missing costs no change of the container's own layer.
// Docker makes the same for each container anew.
var (
	baseDirs  = []string{"dev", "dev/pts", "dev/shm", "etc", "proc", "sys"}
	baseFiles = []string{".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"}
)

// makeBase fills the layer below all others, where something is missing.
func makeBase(dir string) error {
	for _, name := range baseDirs {
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil {
			return err
		}
	}
	for _, name := range baseFiles {
		f, err := os.OpenFile(dir+"/"+name, os.O_CREATE|os.O_RDONLY, 0o755)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	if err := os.Symlink("/proc/mounts", dir+"/etc/mtab"); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
