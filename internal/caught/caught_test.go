package caught

import (
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOpen sends signals to this process and reads their numbers.
func TestOpen(t *testing.T) {
	others := make(chan os.Signal, 1) // Go's own go on
	signal.Notify(others, unix.SIGUSR2)
	defer signal.Stop(others)
	fd, err := Open(unix.SIGUSR1, unix.SIGTERM, unix.SIGWINCH)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "signals")
	if err := f.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGUSR1, unix.SIGWINCH, unix.SIGUSR1} {
			if err := unix.Kill(unix.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			var b [8]byte
			n, err := f.Read(b[:])
			if err != nil || n != 1 || unix.Signal(b[0]) != sig {
				t.Fatalf("round %d: %d bytes, %v, %v; want %v", i, n, b[:n], err, sig)
			}
		}
	}
	if err := unix.Kill(unix.Getpid(), unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	select {
	case <-others:
	case <-time.After(10 * time.Second):
		t.Error("a signal of Go's own did not arrive")
	}
}
