package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Slack is by how many ns the timers may be late of what this process executes
// (PR_SET_TIMERSLACK(2const)); 0, as in most programs: by what the thread's own may.
var Slack uintptr

// Settle has what the goroutine executes until done inherit Slack: a child has that
// of the thread which makes it.
func Settle() (done func()) {
	if Slack == 0 {
		return func() {}
	}
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, Slack, 0, 0, 0)
	return runtime.UnlockOSThread
}
