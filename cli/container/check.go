package container

import (
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// checked makes a list's check of the function that reads a value later, so that a wrong
// value is told of with its flag.
func checked[T any](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		_, err := parse(s)
		return s, err
	}
}

// ofDevice splits /dev/NAME:VALUE.
func ofDevice(s string) (path, value string, err error) {
	path, value, ok := strings.Cut(s, ":")
	switch {
	case !ok || path == "":
		return "", "", fault.New(fault.Invalid, "bad format: %s", s)
	case !strings.HasPrefix(path, "/dev/"):
		return "", "", fault.New(fault.Invalid, "bad format for device path: %s", s)
	}
	return path, value, nil
}

// parseWeight reads a value of --blkio-weight-device.
func parseWeight(s string) (client.WeightDevice, error) {
	path, value, err := ofDevice(s)
	if err != nil {
		return client.WeightDevice{}, err
	}
	weight, err := strconv.ParseUint(value, 10, 16)
	if err != nil || weight > 0 && (weight < 10 || weight > 1000) {
		return client.WeightDevice{}, fault.New(fault.Invalid, "invalid weight for device: %s", s)
	}
	return client.WeightDevice{Path: path, Weight: uint16(weight)}, nil
}

// parseBytesRate reads a value of --device-read-bps.
func parseBytesRate(s string) (client.ThrottleDevice, error) {
	path, value, err := ofDevice(s)
	if err != nil {
		return client.ThrottleDevice{}, err
	}
	rate, err := option.ParseBytes(value)
	if err != nil {
		return client.ThrottleDevice{}, fault.New(fault.Invalid, "invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. "+
			"Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
	}
	return client.ThrottleDevice{Path: path, Rate: uint64(rate)}, nil
}

// parseRate reads a value of --device-read-iops.
func parseRate(s string) (client.ThrottleDevice, error) {
	path, value, err := ofDevice(s)
	if err != nil {
		return client.ThrottleDevice{}, err
	}
	rate, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return client.ThrottleDevice{}, fault.New(fault.Invalid, "invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	return client.ThrottleDevice{Path: path, Rate: rate}, nil
}

// checkSysctl refuses what belongs to the whole machine.
func checkSysctl(s string) (string, error) {
	name, _, ok := strings.Cut(s, "=")
	own := []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
	if !ok || !slices.Contains(own, name) && !strings.HasPrefix(name, "net.") && !strings.HasPrefix(name, "fs.mqueue.") {
		return "", fault.New(fault.Invalid, "sysctl '%s' is not allowed", s)
	}
	return s, nil
}

// checkDeviceRule takes TYPE MAJOR:MINOR ACCESS.
func checkDeviceRule(s string) (string, error) {
	number := func(n string) bool { return n == "*" || n != "" && strings.Trim(n, "0123456789") == "" }
	fields := strings.Fields(s)
	if len(fields) == 3 {
		major, minor, ok := strings.Cut(fields[1], ":")
		if ok && number(major) && number(minor) && strings.Contains("acb", fields[0]) && len(fields[0]) == 1 &&
			len(fields[2]) <= 3 && strings.Trim(fields[2], "rwm") == "" {
			return s, nil
		}
	}
	return "", fault.New(fault.Invalid, "invalid device cgroup format '%s'", s)
}

// checkDomain takes a domain's name, or a dot for none.
func checkDomain(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "." {
		return s, nil
	}
	bad := len(s) > 255 || strings.IndexFunc(s, isLetter) < 0
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		inner := strings.Trim(label, "-")
		bad = bad || label == "" || inner != label || strings.IndexFunc(label, func(r rune) bool { return !isLetter(r) && r != '-' && (r < '0' || r > '9') }) >= 0
	}
	if bad {
		return "", fault.New(fault.Invalid, "%s is not a valid domain", s)
	}
	return s, nil
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// checkLink takes NAME or NAME:ALIAS.
func checkLink(s string) (string, error) {
	if s == "" {
		return "", fault.New(fault.Invalid, "empty string specified for links")
	}
	if strings.Count(s, ":") > 1 {
		return "", fault.New(fault.Invalid, "bad format for links: %s", s)
	}
	return s, nil
}
