package overlayfs

import "golang.org/x/sys/unix"

// The marks by which a layer hides what is below it: the kernel's
// Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
const opaque = "trusted.overlay.opaque"

// IsWhiteout tells whether the file stands for nothing.
func IsWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// IsOpaque tells whether an open directory hides those below it.
func IsOpaque(fd int) bool {
	var value [1]byte
	n, err := unix.Fgetxattr(fd, opaque, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// SetOpaque makes an open directory hide those below it.
func SetOpaque(fd int) error { return unix.Fsetxattr(fd, opaque, []byte{'y'}, 0) }
