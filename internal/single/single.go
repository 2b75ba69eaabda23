// Package single, imported by a program, has its Go code use one processor: for a
// program that lives for milliseconds, in which nothing computes. The threads that
// the Go runtime starts for other processors cost it a tenth of its life.
//
// It imports nothing but the runtime, by which it is initialised before nearly all
// other packages (the Go specification, Package initialization). Later, in main,
// the same call is dearer: threads were made for the initialisation of the other
// packages, and what the second processor has allocated by then is handed back
// span by span, which writes to two new pages for each (50 page faults).
//
// A program that is linked with the flag -E tare_start (for x86-64) begins here,
// and is cheaper still: the Go runtime then finds GOMAXPROCS=1 in its environment,
// and so makes nothing for a second processor; it finds no memory profile to sample
// for; and it can open no files, by which it passes over /proc/self/mountinfo and
// what else it would read to know how many processors it may use. All of that has
// ended when package os is initialised, but for the variable, which Forget removes.
//
// With -E tare_start_brief its threads may be woken a millisecond late besides. Of
// those one sleeps for 20 µs at a time, all its life, to look after the others,
// for which the kernel would interrupt them. What they execute must not inherit
// that: see thread.Prompt.
package single

import "runtime"

func init() {
	if limited {
		restore()
	}
	if !began {
		runtime.GOMAXPROCS(1)
	}
}

// Forget removes by unset what the start has added to the environment.
func Forget(unset func(name string) error) {
	if began {
		unset("GOMAXPROCS")
	}
}
