package stream

import (
	"strings"

	"github.com/tarehq/tare/fault"
)

// DefaultDetachKeys are what the daemon uses when nothing else is said.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ParseKeys turns a comma-separated sequence of characters and ctrl-X into
// bytes. "" is the default.
func ParseKeys(text string) ([]byte, error) {
	if text == "" {
		text = DefaultDetachKeys
	}
	var keys []byte
	for _, key := range strings.Split(text, ",") {
		b, ok := parseKey(key)
		if !ok {
			return nil, fault.New(fault.Invalid, "invalid detach keys (%s): unknown character: '%s': use single characters or ctrl-a to ctrl-z, @, [, \\, ], ^, _", text, key)
		}
		keys = append(keys, b)
	}
	return keys, nil
}

func parseKey(key string) (byte, bool) {
	if len(key) == 1 {
		return key[0], true
	}
	name, ok := strings.CutPrefix(key, "ctrl-")
	switch {
	case key == "DEL":
		return 127, true
	case !ok || len(name) != 1:
		return 0, false
	case name[0] >= 'a' && name[0] <= 'z':
		return name[0] - 'a' + 1, true
	case name[0] == '@':
		return 0, true
	case strings.Contains(`[\]^_`, name):
		return name[0] - '[' + 27, true
	}
	return 0, false
}
