// Package slim gives back the memory that only a program's start needed.
package slim

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// settled is when a start is over: whoever waited for it has been answered.
const settled = 2 * time.Second

// Later gives it back when the start is over, for it takes as long as the
// start, and the first answers need the code again that it gives back. The
// function that it returns ends that.
func Later() (end func()) {
	var done sync.WaitGroup
	done.Add(1)
	t := time.AfterFunc(settled, func() {
		defer done.Done()
		slim()
	})
	return func() {
		if t.Stop() {
			done.Done()
		}
		done.Wait()
	}
}

// slim gives back the memory that only the start needed: the heap's garbage, and
// the pages of code and constants, which the kernel maps from the file again when
// they are used (madvise(2), MADV_DONTNEED). Nothing writes to those.
func slim() {
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "r-xp" && f[1] != "r--p" || f[5] != program {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		begin, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_DONTNEED) // a hint
		}
	}
}
