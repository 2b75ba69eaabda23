package archive

import (
	"errors"
	"maps"
	"strings"

	"golang.org/x/sys/unix"
)

// keepsXattr tells whether an extended attribute belongs to the file and not
// to the machine that it lies on, as security.selinux and security.ima do, or
// to a file system, as overlayfs's and the daemon's own.
func keepsXattr(name string) bool {
	switch {
	case name == "security.capability", name == "system.posix_acl_access", name == "system.posix_acl_default":
		return true
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."):
		return !isOverlay(name) && !strings.HasPrefix(name, "trusted.tare.")
	}
	return false
}

// isOverlay tells whether overlayfs gives the attribute a meaning.
func isOverlay(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// keepsOverlay is keepsXattr for a tree in which those are data.
func keepsOverlay(name string) bool { return keepsXattr(name) || isOverlay(name) }

// readXattrs reads the extended attributes of what fd is open for, a mere
// place (O_PATH) too. buf has the 64 KiB that a list or a value can take.
func readXattrs(fd int, buf []byte, keeps func(name string) bool) (map[string]string, error) {
	n, err := unix.Flistxattr(fd, buf)
	at := ""
	if errors.Is(err, unix.EBADF) { // O_PATH
		at = procFD(fd)
		n, err = unix.Listxattr(at, buf)
	}
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !keeps(name) {
			continue
		}
		n, err := getXattr(fd, at, name, buf)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if found == nil {
			found = map[string]string{}
		}
		found[name] = string(buf[:n])
	}
	return found, nil
}

func sameXattrs(a, b int, buf []byte) (bool, error) {
	first, err := readXattrs(a, buf, keepsXattr)
	if err != nil {
		return false, err
	}
	second, err := readXattrs(b, buf, keepsXattr)
	return maps.Equal(first, second), err
}

// getXattr reads an attribute of a descriptor, or of the path that leads to it where
// that is a mere place.
func getXattr(fd int, at, name string, buf []byte) (int, error) {
	if at != "" {
		return unix.Getxattr(at, name, buf)
	}
	return unix.Fgetxattr(fd, name, buf)
}
