package single

import "runtime"

// rate is where the runtime looks how often to note an allocation. It notes the
// very first one, before it finds that nobody will read that: 1.4 MB and ten page faults.
var rate = &runtime.MemProfileRate

// added is 1 when entry has set GOMAXPROCS; slack is what the caller's timers may
// be late by.
var added, slack uint64

// files is the limit of open files that the program was started with, which the entry
// has lowered to the standard three: Go's runtime opens five files of the kernel's to
// learn of huge pages and of the control group's limit of processors, and does
// without what it cannot open.
var (
	files   [2]uint64
	lowered uint64
)

// entry is the program's first instruction. It is not for Go to call.
func entry()

// deep has a frame of 10,000 bytes, of which it touches none.
func deep()

// settle gives the first thread, and those that it makes, the timers that the
// program was started with, and the program its limit of open files: what it executes
// inherits them. Package syscall looks at that limit after this.
func settle()

// grow gives the first goroutine the stack at once that it will come to need: growing by
// and by copies it four times, and touches twice the memory.
func grow() { deep() }

// Slack is by how many ns the timers may be late of what the program executes, if
// those of its threads may be by more: whatever the thread makes that looks after
// the others. 0 if not.
func Slack() uintptr { return uintptr(max(int64(slack), 0)) }

// Settings names the variable that the entry has added to the environment, which
// is no matter of what the program executes; "" if it has added none.
func Settings() string {
	if added == 0 {
		return ""
	}
	return "GOMAXPROCS"
}
