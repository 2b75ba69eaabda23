package keeper

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// consoleSocket listens for a runtime that is executed to send a terminal.
type consoleSocket struct {
	fd, dir int
	path    string // valid for other processes, and short enough for them
}

func listenConsole(dir string) (*consoleSocket, error) {
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	c := &consoleSocket{fd: -1, dir: d, path: fmt.Sprintf("/proc/%d/fd/%d/console", os.Getpid(), d)}
	if c.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		if err = unix.Bind(c.fd, &unix.SockaddrUnix{Name: c.path}); err == nil {
			err = unix.Listen(c.fd, 1)
		}
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("cannot make the console socket: %w", err)
	}
	return c, nil
}

func (c *consoleSocket) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	unix.Close(c.dir)
}

// acceptMaster takes the connection of a runtime that has finished as the one
// that the terminal arrives on.
func (s *stdio) acceptMaster(c *consoleSocket) error {
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return err
	}
	fd, _, err := unix.Accept4(c.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("the runtime sent no terminal: %w", err)
	}
	unix.Close(s.master)
	s.master = fd
	return nil
}
