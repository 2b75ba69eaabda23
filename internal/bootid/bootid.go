// Package bootid tells boots of the machine apart: what was written and not
// synced is there until the end of the boot.
package bootid

import (
	"os"
	"strings"
)

// Path is where the kernel tells which boot this is, random(4).
const Path = "/proc/sys/kernel/random/boot_id"

// Now returns the ID of this boot.
func Now() (string, error) {
	data, err := os.ReadFile(Path)
	return strings.TrimSpace(string(data)), err
}
