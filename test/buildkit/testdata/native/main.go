// Command native says what processor it was made for, and writes it to /made.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Println("runs on " + runtime.GOARCH)
	if err := os.WriteFile("/made", []byte(runtime.GOARCH), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
