package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// How late a thread may be woken, in ns: as a program begins with tare_start_brief
// (internal/single), and as the kernel has it.
const (
	briefSlack = 1_000_000
	usualSlack = 50_000
)

// Prompt is called before a program is executed: it would inherit how late its
// maker's thread may be woken (prctl(2), PR_SET_TIMERSLACK). Until done is called
// the goroutine stays on its thread.
func Prompt() (done func()) {
	runtime.LockOSThread()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil && slack == briefSlack {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, usualSlack, 0, 0, 0) // it has just been read
	}
	return runtime.UnlockOSThread
}
