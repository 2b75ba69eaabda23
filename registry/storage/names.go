package storage

import (
	_ "crypto/sha256" // what go-digest computes has to be linked
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/reference"
)

// What is well formed: the grammar of the distribution specification, and for
// digests the algorithms that the image specification registers and every
// storage can compute.

// ValidRepository tells whether a repository can have the name.
func ValidRepository(name string) bool { return len(name) <= 255 && reference.IsPath(name) }

// ValidTag tells whether a tag can have the name.
func ValidTag(name string) bool { return reference.IsTag(name) }

// ValidDigest tells whether d is of sha256 or sha512, in small letters.
func ValidDigest(d digest.Digest) bool {
	const algorithm = len("sha256:")
	if len(d) < algorithm || d[algorithm-1] != ':' {
		return false
	}
	switch d[:algorithm-1] {
	case "sha256":
		return len(d) == algorithm+64 && isHex(string(d[algorithm:]))
	case "sha512":
		return len(d) == algorithm+128 && isHex(string(d[algorithm:]))
	}
	return false
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
