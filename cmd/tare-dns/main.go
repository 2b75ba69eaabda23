// Command tare-dns answers the look-ups of all containers of a daemon. It is
// started by tared, with a socket to it as descriptor 3, and goes on when tared
// ends:
//
//	tare-dns EXEC-ROOT
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/network/dns"
	"github.com/tarehq/tare/network/dns/server"
)

// idle is how long the next container with names is waited for.
const idle = 10 * time.Second

func main() {
	var st unix.Stat_t
	if len(os.Args) != 2 || !server.Inherits() && (unix.Fstat(3, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK) {
		fmt.Fprintln(os.Stderr, "tare-dns is started by tared, for the containers on its networks")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "tare-dns:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	s, err := server.New(server.Config{Socket: filepath.Join(dir, dns.SocketName), Idle: idle})
	if err != nil {
		return err
	}
	if server.Inherits() {
		daemons, err := s.Inherit()
		if err != nil {
			return err
		}
		return s.Run(daemons...)
	}
	unix.CloseOnExec(3)
	if err := closeStrange(); err != nil {
		return err
	}
	daemon, err := seqpacket.New(3)
	if err != nil {
		return err
	}
	if err := s.Listen(); err != nil {
		return err
	}
	return s.Run(daemon)
}

// closeStrange closes what whoever started the daemon had open, a lock perhaps:
// all our own descriptors are closed when a program is executed.
func closeStrange() error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range open {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}
