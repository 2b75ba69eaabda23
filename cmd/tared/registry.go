package main

import (
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/remote/hosts"
)

// limit is how many a number of the options allows: 0 is no limit.
func limit(n int) int {
	if n == 0 {
		return 1 << 10
	}
	return n
}

// checkRegistries holds the options about registries to dockerd's rules, and
// writes them as it does.
func (o *options) checkRegistries() error {
	switch {
	case o.Downloads < 0:
		return fault.New(fault.Invalid, "invalid max concurrent downloads: %d", o.Downloads)
	case o.Uploads < 0:
		return fault.New(fault.Invalid, "invalid max concurrent uploads: %d", o.Uploads)
	case o.PullAttempts <= 0:
		return fault.New(fault.Invalid, "invalid max download attempts: %d", o.PullAttempts)
	}
	for i, m := range o.Mirrors {
		u, err := hosts.ParseMirror(m)
		if err != nil {
			return err
		}
		o.Mirrors[i] = strings.TrimSuffix(u.String(), "/") + "/"
	}
	for i, entry := range o.Insecure {
		host, prefix, err := hosts.ParseInsecure(entry)
		if err != nil {
			return err
		}
		if o.Insecure[i] = host; prefix.IsValid() {
			o.Insecure[i] = prefix.String()
		}
	}
	return nil
}
