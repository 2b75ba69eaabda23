package spec

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
)

// capNames are all capabilities by number, linux/capability.h.
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// ownCaps are the capabilities that this process may hand on: its bounding
// set, which on some machines lacks one or two that root usually has.
var ownCaps = sync.OnceValue(func() []string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return capNames
	}
	_, after, _ := strings.Cut(string(status), "CapBnd:\t")
	line, _, _ := strings.Cut(after, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		return capNames
	}
	var names []string
	for i, name := range capNames {
		if mask&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
})

// normalCap gives a capability its full name, "ALL" for all of them.
func normalCap(name string) (string, error) {
	c := strings.ToUpper(name)
	if c == "ALL" {
		return c, nil
	}
	if !strings.HasPrefix(c, "CAP_") {
		c = "CAP_" + c
	}
	if !slices.Contains(capNames, c) {
		return "", fault.New(fault.Invalid, "unknown capability: %q", c)
	}
	return c, nil
}

// capabilities applies --cap-add, --cap-drop and --privileged to the default
// list, in Docker's order: with ALL added, what is dropped goes from all; with
// ALL dropped, only what is added stays.
func capabilities(add, drop []string, privileged bool) ([]string, error) {
	normal := func(field string, names []string) ([]string, error) {
		var out []string
		for _, n := range names {
			c, err := normalCap(n)
			if err != nil {
				return nil, fmt.Errorf("invalid %s: %w", field, err)
			}
			out = append(out, c)
		}
		return out, nil
	}
	add, err := normal("CapAdd", add)
	if err != nil {
		return nil, err
	}
	if drop, err = normal("CapDrop", drop); err != nil {
		return nil, err
	}
	base := defaultCaps
	switch {
	case privileged:
		return ownCaps(), nil
	case slices.Contains(add, "ALL"):
		base, add = ownCaps(), nil
	case slices.Contains(drop, "ALL"):
		base, drop = nil, nil
	}
	var caps []string
	for _, c := range append(slices.Clone(base), add...) {
		if !slices.Contains(drop, c) && !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	return caps, nil
}

// sets gives root the capabilities in effect, and another user only the bound
// of what a set-uid program may gain. None are inheritable, and none ambient.
func sets(caps []string, root bool) *specs.LinuxCapabilities {
	s := &specs.LinuxCapabilities{Bounding: caps}
	if root {
		s.Effective, s.Permitted = caps, caps
	}
	return s
}
