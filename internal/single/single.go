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
// Even then Go's runtime has begun with all processors. A program that is linked
// with this package's entry as its own (the Makefile does that, where the entry
// is written for the machine) tells the runtime before: by GOMAXPROCS, unless the
// caller has set that, and keeps it from opening files until it has begun. The thread with which the runtime looks after the others
// then also sleeps for milliseconds instead of 70 µs a time, and nothing is
// written down for a profile of memory that nobody reads. Without the entry a
// program does the same, and begins later. See docs/decisions/053-first-instruction.md.
package single

import "runtime"

func init() {
	runtime.GOMAXPROCS(1)
	settle()
	grow()
}
