package single

import "runtime"

var (
	began   bool // in tare_start
	limited bool
	files   [2]uint64      // the limits of open files, soft and hard, that the program was given
	none    = [2]uint64{3} // limits by which nothing but the standard streams can be opened
	rate    = &runtime.MemProfileRate
)

// restore gives the limits of open files back.
func restore()
