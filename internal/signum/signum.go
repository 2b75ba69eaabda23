// Package signum reads the names and numbers of signals, signal(7).
package signum

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The real-time signals as programs know them: the C library keeps the kernel's
// first two for itself.
const rtMin, rtMax = 34, 64

// Parse reads a number up to 64, or a name with or without SIG, RTMIN+N and
// RTMAX-N too, in small letters or capitals. Zero is no signal, but kill(2)
// takes it.
func Parse(s string) (sig syscall.Signal, ok bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return syscall.Signal(n), n >= 0 && n <= rtMax
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, true
	}
	base, rest := rtMin, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		rest = strings.TrimPrefix(name, "RTMIN")
	case strings.HasPrefix(name, "RTMAX"):
		base, rest = rtMax, strings.TrimPrefix(name, "RTMAX")
	default:
		return 0, false
	}
	n := 0
	if rest != "" {
		var err error
		if n, err = strconv.Atoi(rest); err != nil {
			return 0, false
		}
	}
	n += base
	return syscall.Signal(n), n >= rtMin && n <= rtMax
}
