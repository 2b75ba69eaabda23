package content

import (
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// notePrefix begins the extended attributes of blobs that hold notes.
const notePrefix = "trusted.tare.note."

// Note keeps a short text beside a blob, by a key. It may be lost at any time,
// as where the file system has no attributes: what it says must be something
// that can be found out again.
func (s *Store) Note(d digest.Digest, key, text string) {
	if path, err := s.blobPath(d); err == nil {
		_ = unix.Setxattr(path, notePrefix+key, []byte(text), 0)
	}
}

// Noted returns what was noted, or "".
func (s *Store) Noted(d digest.Digest, key string) string {
	path, err := s.blobPath(d)
	if err != nil {
		return ""
	}
	buf := make([]byte, 512)
	n, err := unix.Getxattr(path, notePrefix+key, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}
