package ocirun

import (
	"strconv"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capabilityNames are the capabilities in the order of their numbers, see
// capabilities(7), without the prefix CAP_.
var capabilityNames = [...]string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID",
	"SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK",
	"IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE"}

// Capabilities lists the known capabilities with their prefix.
func Capabilities() []string {
	var out []string
	for _, n := range capabilityNames {
		out = append(out, "CAP_"+n)
	}
	return out
}

// capabilitySets are the five sets as bits.
type capabilitySets struct {
	bounding, effective, permitted, inheritable, ambient uint64
}

// permitted is what this process itself holds.
var ownPermitted = sync.OnceValue(func() uint64 {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
})

// parseCapabilities turns names into sets. What cannot be given is left out and
// warned of, as the specification wants it: a name that is not known, and an
// ambient capability that is not permitted and inheritable too. A capability
// that the runtime does not hold itself cannot be given either, unless the
// container has its own user namespace, where it holds all of them.
func parseCapabilities(c *specs.LinuxCapabilities, held uint64, warn func(string)) (s capabilitySets) {
	if c == nil {
		return s
	}
	unknown := map[string]bool{}
	for _, set := range []struct {
		names []string
		bits  *uint64
	}{{c.Bounding, &s.bounding}, {c.Effective, &s.effective}, {c.Permitted, &s.permitted},
		{c.Inheritable, &s.inheritable}, {c.Ambient, &s.ambient}} {
		for _, name := range set.names {
			bit := capabilityBit(name)
			if bit == 0 && !unknown[name] {
				unknown[name] = true
				warn("ignoring the capability " + strconv.Quote(name) + ", which is not known")
			}
			*set.bits |= bit & held
		}
	}
	for i, name := range capabilityNames {
		if bit := uint64(1) << i; s.ambient&bit != 0 && s.permitted&s.inheritable&bit == 0 {
			s.ambient &^= bit
			warn("can't raise ambient capability CAP_" + name + ": it is not both permitted and inheritable")
		}
	}
	return s
}

// capabilityBit is 0 for a name that is not known.
func capabilityBit(name string) uint64 {
	if len(name) > 4 && name[:4] == "CAP_" {
		for i, n := range capabilityNames {
			if n == name[4:] {
				return 1 << i
			}
		}
	}
	return 0
}

// bound appends the reduction of the bounding set, which needs CAP_SETPCAP and
// comes while the process still has it.
func (b *builder) bound(s capabilitySets) {
	for i := range capabilityNames {
		if s.bounding&(1<<i) == 0 {
			b.do("drop from the bounding set", capabilityNames[i], unix.SYS_PRCTL, num(unix.PR_CAPBSET_DROP), num(i)).
				when(unix.EINVAL, following)
		}
	}
	b.do("keep capabilities", "", unix.SYS_PRCTL, num(unix.PR_SET_KEEPCAPS), num(1))
}

// applyCapabilities appends the other four sets, after the user is set.
func (b *builder) applyCapabilities(s capabilitySets) {
	header := b.words(num(uint64(unix.LINUX_CAPABILITY_VERSION_3)))
	low := func(n uint64) uint64 { return n & 0xffffffff }
	pair := func(lo, hi uint64) value { return num(low(lo) | hi<<32) }
	data := b.words(pair(s.effective, low(s.permitted)), pair(s.inheritable, s.effective>>32),
		pair(s.permitted>>32, s.inheritable>>32))
	b.do("set the capabilities", "", unix.SYS_CAPSET, header, data)
	b.do("clear the ambient capabilities", "", unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT), num(unix.PR_CAP_AMBIENT_CLEAR_ALL)).ignore()
	for i := range capabilityNames {
		if s.ambient&(1<<i) != 0 {
			b.do("raise the ambient capability", capabilityNames[i], unix.SYS_PRCTL, num(unix.PR_CAP_AMBIENT),
				num(unix.PR_CAP_AMBIENT_RAISE), num(i))
		}
	}
}
