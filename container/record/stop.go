package record

import (
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/signum"
)

// defaultStopTimeout is that of containers that do not say, in seconds.
const defaultStopTimeout = 10

// StopTimeout is how long the container has from its stop signal to SIGKILL: as asked
// for, in seconds, else as its config says; negative for ever.
func (r *Record) StopTimeout(asked *int) time.Duration {
	n := defaultStopTimeout
	if r.Config.StopTimeout != nil {
		n = *r.Config.StopTimeout
	}
	if asked != nil {
		n = *asked
	}
	return time.Duration(min(max(n, -1), int(math.MaxInt64/time.Second))) * time.Second // or the longest that there is
}

// StopSignal is the signal asked for, the container's, or SIGTERM. A container's
// that is none can only be the image's, and must not make it unstoppable.
func (r *Record) StopSignal(asked string) (syscall.Signal, error) {
	if asked != "" {
		return ParseSignal(asked)
	}
	if sig, err := ParseSignal(r.Config.StopSignal); err == nil {
		return sig, nil
	}
	return unix.SIGTERM, nil
}

// ParseSignal reads a signal's number or name in Docker's words; there is no
// signal zero.
func ParseSignal(s string) (syscall.Signal, error) {
	if sig, ok := signum.Parse(s); ok && sig != 0 {
		return sig, nil
	}
	return 0, fault.New(fault.Invalid, "invalid signal: %s", s)
}
