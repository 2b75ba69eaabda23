package relay

import (
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pieces are the buffers of connections that carry data.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// pass carries a client's connection to the container and back.
func pass(fd int, to netip.AddrPort) {
	client := os.NewFile(uintptr(fd), "client")
	defer client.Close()
	other, err := dial(unix.SOCK_STREAM, to)
	var target *os.File
	if err == nil {
		target = os.NewFile(uintptr(other), "container")
		defer target.Close()
		err = connected(target)
	}
	if err != nil {
		// As the container's own refusal would look.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		return
	}
	done := make(chan struct{})
	go func() {
		carry(target, client)
		close(done)
	}()
	carry(client, target)
	<-done
}

// connected waits for the connection that is under way.
func connected(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Write(func(fd uintptr) bool {
		if _, err := unix.Getpeername(int(fd)); err == nil {
			return true
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		failure = err
		return failure != nil
	})
	if err != nil {
		return err
	}
	return failure
}

// carry copies until the end of from, and passes that on. After a failure
// neither direction has a use.
func carry(to, from *os.File) {
	piece := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(piece)
	for {
		n, err := from.Read(piece[:])
		if n > 0 {
			if _, err := to.Write(piece[:n]); err != nil {
				shut(from, unix.SHUT_RDWR)
				shut(to, unix.SHUT_RDWR)
				return
			}
		}
		if err != nil {
			shut(to, unix.SHUT_WR)
			return
		}
	}
}

func shut(f *os.File, how int) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
	}
}
