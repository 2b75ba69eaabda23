package launch

import (
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/tarehq/tare/internal/handoff"
)

type closed chan struct{}

func (c closed) Close() error { close(c); return nil }

// A process that did not take a connection, whosever fault that is, is asked once more, and
// what it builds for others goes on.
func TestOneConnectionEndsNoBuilds(t *testing.T) {
	b := &Builder{Config: Config{Dir: t.TempDir()}}
	alive := make(closed)
	b.running = &process{alive: alive, done: make(chan struct{})}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.Dir, "in.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l := handoff.Receive(socket)
	defer l.Close()
	go func() {
		if first, err := socket.AcceptUnix(); err == nil {
			first.Close()
		}
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	client, server := net.Pipe()
	defer client.Close()
	served := make(chan error, 1)
	go func() { served <- b.Serve(server, []byte("read ")) }()
	got := make([]byte, len("read on"))
	answered := make(chan error, 1)
	go func() {
		_, err := io.WriteString(client, "on")
		if err == nil {
			_, err = io.ReadFull(client, got)
		}
		answered <- err
	}()
	select {
	case <-alive:
		t.Fatal("the process was told to end")
	case err := <-answered:
		if err != nil || string(got) != "read on" {
			t.Errorf("%q came back: %v", got, err)
		}
	}
	client.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
