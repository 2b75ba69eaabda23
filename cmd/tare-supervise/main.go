// Command tare-supervise supervises one container. It is started by tared,
// with a socket to it as descriptor 3, and by nobody else; by supervise.StarterArg it
// starts others for it.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/supervise"
	"github.com/tarehq/tare/supervise/keeper"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == supervise.StarterArg {
		if err := supervise.ServeStarts(); err != nil {
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 2 {
		if err := keeper.Resume(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "tare-supervise:", err)
			os.Exit(1)
		}
		return
	}
	var st unix.Stat_t
	if unix.Fstat(3, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		fmt.Fprintln(os.Stderr, "tare-supervise is started by tared; use tare run to start a container")
		os.Exit(2)
	}
	unix.CloseOnExec(3)
	if err := keeper.Run(3); err != nil {
		os.Exit(1)
	}
}
