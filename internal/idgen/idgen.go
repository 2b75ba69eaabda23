// Package idgen makes the random identifiers of containers, exec sessions and
// endpoints.
package idgen

import (
	"crypto/rand"
	"encoding/hex"
)

// New returns 64 hexadecimal characters, 256 random bits, whose first twelve
// characters are never all digits: a short form that were a number could not
// be told from a process ID or be used as a host name.
func New() string {
	var b [32]byte
	for {
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if hasLetter(id[:12]) {
			return id
		}
	}
}

func hasLetter(s string) bool {
	for i := range len(s) {
		if s[i] >= 'a' {
			return true
		}
	}
	return false
}
