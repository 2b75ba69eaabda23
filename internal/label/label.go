// Package label tells whether labels, a map of keys and values, meet the
// conditions that filters are made of.
package label

import "strings"

// Has tells whether a condition holds: "key" of a key that is there, or
// "key=value".
func Has(labels map[string]string, condition string) bool {
	key, value, withValue := strings.Cut(condition, "=")
	got, ok := labels[key]
	return ok && (!withValue || got == value)
}
