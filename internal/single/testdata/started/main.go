// Command started tells what a program sees that began in tare_start_brief.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/tarehq/tare/internal/single"
)

func main() {
	_, found := os.LookupEnv("GOMAXPROCS")
	single.Forget(os.Unsetenv)
	value, left := os.LookupEnv("GOMAXPROCS")
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		panic(err)
	}
	slack, _, _ := syscall.Syscall(syscall.SYS_PRCTL, 30, 0, 0) // PR_GET_TIMERSLACK
	_, err := os.Stdin.Stat()
	fmt.Println(runtime.GOMAXPROCS(0), found, value, left, files.Cur, files.Max, slack, err == nil, os.Args[1:])
}
