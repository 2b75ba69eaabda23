package option

import (
	"strings"

	"github.com/tarehq/tare/fault"
)

// CheckLabel refuses a label without a name, or with space in it.
func CheckLabel(s string) (string, error) {
	key, _, _ := strings.Cut(s, "=")
	key = strings.TrimLeft(key, " \t")
	if key == "" {
		return "", fault.New(fault.Invalid, "invalid label '%s': empty name", s)
	}
	if strings.ContainsAny(key, " \t") {
		return "", fault.New(fault.Invalid, "label '%s' contains whitespaces", key)
	}
	return s, nil
}
