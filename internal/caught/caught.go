// Package caught holds signals back without the Go runtime. [signal.Notify] needs
// a thread of its own and a word with it for each signal: half a millisecond,
// a tenth of the life of a program that starts another. Here a handler of five
// instructions writes the signal's number into a pipe. Nobody has to read it, which
// is what happens in a short life.
//
// The handlers stand in place of Go's: a program uses either this package or
// os/signal for a signal.
package caught

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// pipe is where the handler writes.
var pipe uintptr

// handler is called by the kernel, restorer by its end.
func handler()
func restorer()

// entries are the addresses of both, which the handlers' registration needs.
func entries() (handler, restorer uintptr)

// sigaction is the kernel's struct of that name, rt_sigaction(2).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	onStack     = 0x08000000 // SA_ONSTACK: Go's stacks are too small
	restart     = 0x10000000 // SA_RESTART
	hasRestorer = 0x04000000 // SA_RESTORER
)

// Open has the signals written into a pipe, a byte for each, also those that were
// ignored, and gives the descriptor to read from, which never blocks. It is called
// once, and what it opens stays open.
func Open(signals ...unix.Signal) (int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, err
	}
	pipe = uintptr(ends[1])
	var act sigaction
	act.handler, act.restorer = entries()
	act.flags = onStack | restart | hasRestorer
	for _, sig := range signals {
		if _, _, err := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0); err != 0 {
			return -1, err
		}
	}
	return ends[0], nil
}
