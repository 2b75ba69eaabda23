// Told says what it finds when it begins, for the tests of package single.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/tarehq/tare/internal/single"
)

func main() {
	if name := single.Settings(); name != "" {
		fmt.Println("added", name, os.Getenv(name))
		os.Unsetenv(name)
	}
	fmt.Println("processors", runtime.GOMAXPROCS(0))
	fmt.Printf("args %q\n", os.Args[1:])
	for _, e := range os.Environ() {
		fmt.Println("env", e)
	}
	slack, _ := os.ReadFile("/proc/self/timerslack_ns")
	fmt.Println("slack", strings.TrimSpace(string(slack)))
	fmt.Println("to be", single.Slack())
	fmt.Println("rate", runtime.MemProfileRate)
	out, _ := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	fmt.Println("children", strings.Join(strings.Fields(string(out)), " "))
	open, _ := os.ReadDir("/proc/self/fd")
	for _, e := range open {
		if name, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(name, "/sys/") {
			fmt.Println("open", name)
		}
	}
}
