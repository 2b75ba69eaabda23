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
	var first [4096]byte // on the stack: most files are far smaller, and each new page costs
	n, err := fill(fd, first[:])
	b := append(make([]byte, 0, max(n, 1)), first[:n]...)
	if n == len(first) && err == nil {
		b = append(make([]byte, 0, 4*n), b...)
	}
	for err == nil && len(b) >= len(first) {
		var n int
		n, err = fill(fd, b[len(b):cap(b)])
		b = b[:len(b)+n]
		if len(b) < cap(b) {
			break
		}
		b = append(make([]byte, 0, 4*cap(b)), b...)
	}
	if err != nil {
		return fail("read", err)
	}
	return b, nil
}

// fill reads until b is full or the file is at its end.
func fill(fd int, b []byte) (int, error) {
	for have := 0; ; {
		n, err := unix.Read(fd, b[have:])
		if err == unix.EINTR {
			continue
		}
		if have += max(n, 0); err != nil || n == 0 || have == len(b) {
			return have, err
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
