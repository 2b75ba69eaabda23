package thread

import (
	"os"
	"runtime"
	"strconv"
)

// Processors lets Go code run on as many processors as it did when the process began:
// on as many as GOMAXPROCS says, or else as the machine and the control group give.
func Processors() {
	if n, err := strconv.Atoi(os.Getenv("GOMAXPROCS")); err == nil && n > 0 {
		runtime.GOMAXPROCS(n)
		return
	}
	runtime.SetDefaultGOMAXPROCS()
}
