package stream

import (
	"strings"

	"github.com/tarehq/tare/fault"
)

// defaultDetachKeys are what a client means that names none: ctrl-p, ctrl-q.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// DetachKeys reads Docker's comma-separated keys: single characters, DEL,
// and ctrl-X with a small letter or one of @ [ \ ] ^ _.
func DetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultDetachKeys
	}
	var keys []byte
	for _, key := range strings.Split(s, ",") {
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case key == "DEL":
			keys = append(keys, 0x7f)
		case len(key) == 6 && key[:5] == "ctrl-" && isControl(key[5]):
			keys = append(keys, control(key[5]))
		default:
			return nil, fault.New(fault.Invalid, "Invalid detach keys (%s) provided", s)
		}
	}
	return keys, nil
}

func isControl(c byte) bool {
	return c >= 'a' && c <= 'z' || strings.IndexByte(`@[\]^_`, c) >= 0
}

func control(c byte) byte {
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c & 0x1f
}
