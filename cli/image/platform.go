package image

import (
	"strings"

	"github.com/tarehq/tare/fault"
)

// checkPlatform refuses what is no os[/arch[/variant]]; "" is none.
func checkPlatform(p string) error {
	if p == "" {
		return nil
	}
	parts := strings.Split(p, "/")
	bad := len(parts) > 3
	for _, part := range parts {
		if part == "" || strings.Trim(strings.ToLower(part), "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			bad = true
		}
	}
	if bad {
		return fault.New(fault.Invalid, "invalid platform: %q: cannot parse platform specifier: use os[/arch[/variant]]", p)
	}
	return nil
}

func checkPlatforms(list []string) error {
	for _, p := range list {
		if err := checkPlatform(p); err != nil {
			return err
		}
	}
	return nil
}
