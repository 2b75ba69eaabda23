package procfs

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Read is [os.ReadFile] for what nobody waits for: a file of the kernel's or a
// small one on a disk. It has no need of Go's poller, which costs six system calls
// for each file, and to a program that lives for milliseconds its own beginning too.
func Read(name string) ([]byte, error) {
	fail := func(op string, err error) ([]byte, error) {
		return nil, &os.PathError{Op: op, Path: name, Err: err}
	}
	if strings.IndexByte(name, 0) >= 0 {
		return fail("open", unix.EINVAL)
	}
	fd, err := again(func() (int, error) { return unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 4096)
	for {
		n, err := again(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if err != nil {
			return fail("read", err)
		}
		if n == 0 {
			return b, nil
		}
		b = b[:len(b)+n]
		if cap(b)-len(b) < 512 {
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
	}
}

// again repeats what a signal has interrupted.
func again(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}
