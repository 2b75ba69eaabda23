package spec

import "slices"

// ociVersion is the oldest version of the specification that has all that is
// used here: runtimes refuse those that are newer than they are.
const ociVersion = "1.0.2"

// defaultPath is what PATH is when neither the image nor the user says.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// InitTarget is where --init binds the init program in the container, the
// path that Docker uses.
const InitTarget = "/sbin/docker-init"

// defaultCaps are the capabilities of an unprivileged container, Docker's
// list.
var defaultCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// maskedPaths tell of the host, or reach it, and are hidden.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/sys/devices/virtual/powercap", "/sys/firmware",
}

// readonlyPaths change the host when written.
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// SystemPaths are the paths below /proc and /sys that a container sees nothing
// of, and those that it cannot write, unless it says otherwise.
func SystemPaths() (masked, readonly []string) {
	return slices.Clone(maskedPaths), slices.Clone(readonlyPaths)
}

// deviceRule is a line of the device cgroup: type, major, minor (-1 for all).
type deviceRule struct {
	kind         string
	major, minor int64
	access       string
}

// defaultDevices may be used by every container; all others may not, though
// their nodes may be made.
var defaultDevices = []deviceRule{
	{"c", -1, -1, "m"}, {"b", -1, -1, "m"},
	{"c", 1, 3, "rwm"},    // null
	{"c", 1, 5, "rwm"},    // zero
	{"c", 1, 7, "rwm"},    // full
	{"c", 1, 8, "rwm"},    // random
	{"c", 1, 9, "rwm"},    // urandom
	{"c", 5, 0, "rwm"},    // tty
	{"c", 5, 1, "rwm"},    // console
	{"c", 5, 2, "rwm"},    // ptmx
	{"c", 136, -1, "rwm"}, // pts
}
