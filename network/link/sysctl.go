package link

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/tarehq/tare/fault"
)

// ReadSysctl gives the file below /proc/sys/net and the value of a setting like
// net.ipv4.conf.IFNAME.log_martians=1.
func ReadSysctl(set, name string) (file, value string, err error) {
	key, value, found := strings.Cut(set, "=")
	words := strings.Split(key, ".")
	if !found || len(words) != 5 || words[0] != "net" || words[3] != "IFNAME" && words[3] != "ifname" { // Docker's command line makes small letters of it
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
		file, value, err := ReadSysctl(set, name)
		if err == nil {
			err = interfaces.write(file, value)
		}
		if err != nil {
			return fault.New(fault.Invalid, "the setting %s cannot be made: %w", "net."+strings.ReplaceAll(file, "/", ".")+"="+value, err)
		}
	}
	return nil
}

// setIPv6 sets a value of an interface in the calling thread's namespace. A kernel
// without IPv6 has nothing to switch off.
func setIPv6(name, key, value string) error {
	err := interfaces.write("ipv6/conf/"+name+"/"+key, value)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ensureSysctl writes only what differs: writing ip_forward resets other
// settings of the interfaces, and /proc/sys may be read-only where all is set.
func ensureSysctl(name, value string) error {
	if have, err := os.ReadFile("/proc/sys/net/" + name); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "ipv6/") {
		return nil
	}
	return err
}
