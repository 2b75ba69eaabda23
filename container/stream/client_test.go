package stream

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client that reads once finds the head of the answer alone, however quick
// the stream is behind it.
func TestStreamWaitsForTheHead(t *testing.T) {
	const head = "HTTP/1.1 101 UPGRADED\r\n\r\n"
	for range 3 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		far, near := os.NewFile(uintptr(pair[0]), "far"), os.NewFile(uintptr(pair[1]), "near")
		conn, err := net.FileConn(near)
		near.Close()
		if err != nil {
			t.Fatal(err)
		}
		client, err := Hand(conn, []byte(head))
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Greet(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		written := make(chan error, 1)
		go func() {
			_, err := client.Write([]byte("stream"))
			written <- err
		}()
		// Only what is seen before the wait can be over counts.
		for {
			n, err := unix.IoctlGetInt(pair[0], unix.TIOCINQ)
			if err != nil {
				t.Fatal(err)
			}
			if time.Since(began) > 10*time.Millisecond {
				break
			}
			if n != len(head) {
				t.Fatalf("%d bytes are there, the head has %d", n, len(head))
			}
		}
		answer := make([]byte, 100)
		n, err := far.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(began) < headGrace && string(answer[:n]) != head {
			t.Fatalf("read %q", answer[:n])
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		client.Close()
		far.Close()
	}
}
