// Package single, imported by a program, has its Go code use one processor: for a
// program that lives for milliseconds, in which nothing computes. The threads that
// the Go runtime starts for other processors cost it a tenth of its life.
//
// It imports nothing but the runtime, by which it is initialised before nearly all
// other packages (the Go specification, Package initialization). Later, in main,
// the same call is dearer: threads were made for the initialisation of the other
// packages, and what the second processor has allocated by then is handed back
// span by span, which writes to two new pages for each (50 page faults).
package single

import "runtime"

func init() { runtime.GOMAXPROCS(1) }
