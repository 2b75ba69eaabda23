package network

import (
	"os"
	"strings"

	"github.com/tarehq/tare/fault"
)

// readSysctl gives the file below /proc/sys/net and the value of a setting like
// net.ipv4.conf.IFNAME.log_martians=1.
func readSysctl(set, name string) (file, value string, err error) {
	key, value, found := strings.Cut(set, "=")
	words := strings.Split(key, ".")
	if !found || len(words) != 5 || words[0] != "net" || words[3] != "IFNAME" {
		return "", "", fault.New(fault.Invalid, "invalid interface setting %q: want net.X.Y.IFNAME.Z=VALUE, such as net.ipv4.conf.IFNAME.log_martians=1", set)
	}
	for _, w := range words {
		if w == "" || strings.ContainsAny(w, "/\x00\n") || w == ".." {
			return "", "", fault.New(fault.Invalid, "invalid interface setting %q: %q is no word of a setting", set, w)
		}
	}
	words[3] = name
	return strings.Join(words[1:], "/"), value, nil
}

// applySysctls makes an interface's settings in the calling thread's namespace.
func applySysctls(name string, sysctls []string) error {
	for _, set := range sysctls {
		file, value, err := readSysctl(set, name)
		if err == nil {
			err = os.WriteFile("/proc/sys/net/"+file, []byte(value), 0)
		}
		if err != nil {
			return fault.New(fault.Invalid, "the setting %s cannot be made: %w", strings.Replace(set, "IFNAME", name, 1), err)
		}
	}
	return nil
}
