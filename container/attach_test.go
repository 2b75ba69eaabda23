package container

import (
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A client that reads once finds the head of the answer alone, however quick
// the stream is behind it.
func TestStreamWaitsForTheHead(t *testing.T) {
	const tries, head = 50, "HTTP/1.1 101 UPGRADED\r\n\r\n"
	together := 0
	for range tries {
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
		if _, err := conn.Write([]byte(head)); err != nil {
			t.Fatal(err)
		}
		client, err := hand(conn)
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan error, 1)
		go func() {
			_, err := client.Write([]byte("stream"))
			written <- err
		}()
		for range 20 {
			runtime.Gosched()
		}
		answer := make([]byte, 100)
		n, err := far.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		if string(answer[:n]) != head {
			together++
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		client.close()
		far.Close()
	}
	if together > tries/5 { // a reader that is held up for long enough has had its chance
		t.Errorf("%d of %d heads came with the stream", together, tries)
	}
}
