package confine

import "strings"

// defaultProfile is the text of the profile, apparmor.d(5), for a daemon that runs
// under the profile of that name. It forbids what capabilities and masked paths
// forbid already, once more for who gets around them: to mount, to write the
// kernel's settings and devices below /proc and /sys, to trace and signal who is
// outside. What is denied by name is not logged.
func defaultProfile(daemon string) string {
	b := &strings.Builder{}
	b.WriteString("profile " + DefaultProfile + " flags=(attach_disconnected,mediate_deleted) {\n")
	for _, rule := range []string{
		"capability",
		"file",
		"network",
		"umount",
		"unix",

		// Of signals and traces: those among themselves, and who runs them.
		"signal (send,receive) peer=" + DefaultProfile,
		"ptrace (trace,read,tracedby,readby) peer=" + DefaultProfile,
		"signal (receive) peer=" + unconfined,
		"signal (receive) peer=runc",
		"signal (receive) peer=crun",

		"deny mount",

		// Of /proc: no file at its top; below it what has a process's number, and of
		// the settings those of System V's shared memory.
		"deny /proc/* w",
		"deny /proc/[^1-9s/]*/** w",
		"deny /proc/s[^y/]*/** w",
		"deny /proc/sy[^s/]*/** w",
		"deny /proc/sys[^/]*/** w",
		"deny /proc/sys/[^k]** w",
		"deny /proc/sys/k[^e]** w",
		"deny /proc/sys/kernel/[^s]** w",
		"deny /proc/sys/kernel/s[^h]** w",
		"deny /proc/sys/kernel/sh[^m]** w",
		"deny /proc/sysrq-trigger rwklx",
		"deny /proc/kcore rwklx",

		// Of /sys: the control groups.
		"deny /sys/[^f/]*/** wklx",
		"deny /sys/f[^s/]*/** wklx",
		"deny /sys/fs/[^c/]*/** wklx",
		"deny /sys/fs/c[^g/]*/** wklx",
		"deny /sys/firmware/** rwklx",
		"deny /sys/devices/virtual/powercap/** rwklx",
		"deny /sys/kernel/security/** rwklx",
	} {
		b.WriteString("  " + rule + ",\n")
	}
	if daemon != unconfined {
		b.WriteString("  signal (receive) peer=" + daemon + ",\n")
	}
	b.WriteString("}\n")
	return b.String()
}
